//! **Effect.** A node joins a mesh: from a token to files.
//!
//! First it asks who is there, of whoever answers, and believes only what the token's pin confirms. Only then it tells the
//! secret. Until all is known to be right nothing is written but the key that it asks with.

use hyper::Method;
use mesh_core::model::{Name, NodeId, Role};
use mesh_core::records::to_json;
use mesh_core::token::{JoinToken, sha256};

use super::admission::{Issued, JoinRequest};
use super::authority::{certificates, new_request, request_of};
use super::call::{CallError, call};
use super::{Files, NodeFiles, Peer, PkiError, node_of, peer, tls};
use crate::control::now;

/// Why a node has not joined. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It is in a mesh.
    #[error(
        "this node is already part of a mesh ({cluster}, as {role} {node}): let it leave first, with 'mesh cluster leave'"
    )]
    Already {
        /// Which.
        cluster: String,
        /// As what.
        role: Role,
        /// Who it is there.
        node: NodeId,
    },
    /// Nobody to ask.
    #[error("the join token does not say where a manager is: write HOST:PORT after an '@'")]
    Nowhere,
    /// It is not the mesh that the token is for.
    #[error(
        "who answers at {at} is not of the mesh that the join token is for: the authority there is another one; check the \
         address, or get a new token if the authority was replaced"
    )]
    Stranger {
        /// Address.
        at: String,
    },
    /// Clocks differ too much.
    #[error("{0}; nothing was changed")]
    Clock(String),
    /// No answer, or no.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The answer makes no sense.
    #[error("the manager at {at} answers with something that cannot be used: {why}; nothing was changed")]
    Nonsense {
        /// Address.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// Files.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// What a node has become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Which mesh.
    pub cluster: String,
    /// Its id, which its agent must take over.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Where managers answer: the one that it asked comes first.
    pub managers: Vec<String>,
}

/// Joins the mesh of a token, under a name; the node's files are written.
pub async fn join(token: &JoinToken, name: &Name, files: &Files) -> Result<Joined, JoinError> {
    if files.exist() {
        let Peer { cluster, node, role, .. } = files.me()?;
        return Err(JoinError::Already { cluster, role, node });
    }
    let at = token.at.as_deref().ok_or(JoinError::Nowhere)?;
    let nonsense = |why: String| JoinError::Nonsense { at: at.to_owned(), why };
    let (root, cluster) = whom_to_trust(token, at).await?;
    let key = files.join_key(|| Ok(new_request()?.1))?;
    let csr = request_of(&key)?;
    let request = JoinRequest { secret: token.secret.expose(), name: name.to_string(), csr: csr.clone() };
    let config = tls::newcomer(&root, &cluster).map_err(nonsense)?;
    let answered = call::<Issued>(at, &config, Method::POST, "/cluster/v1/join", to_json(&request)).await;
    let issued = match answered {
        Ok(issued) => issued,
        Err(error) => {
            // After no answer it may be in: it must ask as the same node again.
            if !matches!(error, CallError::NoAnswer { .. }) {
                files.forget_join_key()?;
            }
            return Err(error.into());
        }
    };
    let node = node_of(&csr)?;
    check(&issued, &key, &node, &cluster, at)?;
    let mut managers = vec![at.to_owned()];
    managers.extend(issued.managers.iter().filter(|other| *other != at).cloned());
    let Issued { role, certificate, roots, authority, .. } = issued;
    files.write(&NodeFiles { roots, certificate, key, authority })?;
    Ok(Joined { cluster, node, role, managers })
}

/// The authority that the token means, and its mesh.
async fn whom_to_trust(token: &JoinToken, at: &str) -> Result<(String, String), JoinError> {
    let nonsense = |why: String| JoinError::Nonsense { at: at.to_owned(), why };
    let config = tls::anybody().map_err(nonsense)?;
    let roots: String = call(at, &config, Method::GET, "/cluster/v1/ca", String::new()).await?;
    let all = certificates(&roots).map_err(nonsense)?;
    let root = all.into_iter().find(|root| sha256(root) == token.pin);
    let root = root.ok_or_else(|| JoinError::Stranger { at: at.to_owned() })?;
    let (cluster, validity) = peer::authority(&root).map_err(nonsense)?;
    validity.check(now(), "the mesh's authority").map_err(JoinError::Clock)?;
    Ok((super::authority::pem("CERTIFICATE", &root), cluster))
}

/// Whether what was issued is what was asked for.
pub(super) fn check(
    issued: &Issued,
    key: &str,
    node: &NodeId,
    cluster: &str,
    at: &str,
) -> Result<(), JoinError> {
    let nonsense = |why: &str| JoinError::Nonsense { at: at.to_owned(), why: why.to_owned() };
    let chain = certificates(&issued.certificate).map_err(|why| nonsense(&why))?;
    let first = chain.first().ok_or_else(|| nonsense("there is no certificate in it"))?;
    let peer = Peer::read(first).map_err(|why| nonsense(&why))?;
    if peer.node != *node || peer.cluster != cluster || peer.role != issued.role {
        return Err(nonsense("the certificate is another node's"));
    }
    let request = request_of(key)?;
    let own = super::authority::key_of(&request)?;
    if peer::public_key(first).map_err(|why| nonsense(&why))? != own {
        return Err(nonsense("the certificate is for another key"));
    }
    if certificates(&issued.roots).map_err(|why| nonsense(&why))?.is_empty() {
        return Err(nonsense("it names nobody to trust"));
    }
    peer.validity.check(now(), "this node").map_err(JoinError::Clock)
}
