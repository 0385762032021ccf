//! **Decision.** Who may come to a gateway, and as what.

use axum::extract::Request;
use axum::http::header;
use mesh_core::kv::Txn;
use mesh_core::rights::Caller;

use super::Secret;
use super::wire::Refusal;
use crate::pki::{Admission, Peer};

/// How a gateway knows who comes.
#[derive(Clone)]
pub enum Access {
    /// Whoever knows a secret is trusted with everything; there is no encryption.
    Secret(Secret),
    /// Nodes show certificates, and may do what their role says.
    Certificates(Box<Admission>),
}

impl From<Secret> for Access {
    fn from(secret: Secret) -> Self {
        Self::Secret(secret)
    }
}

impl From<Admission> for Access {
    fn from(admission: Admission) -> Self {
        Self::Certificates(Box::new(admission))
    }
}

/// Who is at the other end of a connection, as its certificate says.
#[derive(Clone)]
pub(super) struct Connected(pub(super) Option<Peer>);

/// Who sent a request, if the connection's certificate says so.
pub(super) fn peer(request: &Request) -> Option<&Peer> {
    request.extensions().get::<Connected>().and_then(|connected| connected.0.as_ref())
}

impl Access {
    /// Who asks for something of the store.
    pub(super) fn caller(&self, request: &Request) -> Result<Caller, Refusal> {
        match self {
            Self::Secret(token) => {
                let proof = request.headers().get(header::AUTHORIZATION);
                if token.admits(proof.map_or(&b""[..], |value| value.as_bytes())) {
                    Ok(Caller::Admin)
                } else {
                    Err(Refusal::Denied("the token is wrong".to_owned()))
                }
            }
            Self::Certificates(admission) => {
                let peer = peer(request).ok_or_else(|| {
                    Refusal::Denied("only nodes with a certificate of this mesh are answered".to_owned())
                })?;
                admission.standing(peer).map_err(Refusal::Forbidden)
            }
        }
    }

    /// What is to be committed for a caller.
    pub(super) async fn may_commit(&self, caller: &Caller, txn: Txn) -> Result<Txn, Refusal> {
        match self {
            Self::Secret(_) => Ok(txn),
            Self::Certificates(admission) => {
                admission.may_commit(caller, txn).await.map_err(|why| Refusal::Forbidden(why.to_string()))
            }
        }
    }
}
