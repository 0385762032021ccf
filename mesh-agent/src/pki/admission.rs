//! **Effect.** A manager's side: who is let in, gets the next certificate, and may do what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::certificate::Validity;
use mesh_core::change::{self, Applicant};
use mesh_core::kv::{Compare, Txn};
use mesh_core::model::{Certificate, NodeId, Role};
use mesh_core::rights::{self, Caller, Forbidden};
use mesh_core::token::hex;
use serde::{Deserialize, Serialize};

use super::{Authority, Peer, PkiError, Subject, Tls, new_serial, node_of};
use crate::control::{Control, ControlError, now};

/// How long to wait for this node's copy to know what a caller knows.
const CATCH_UP: Duration = Duration::from_millis(500);

/// How long who has no certificate may take to ask for one.
const STRANGER: Duration = Duration::from_secs(15);

/// What a node that joins sends.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The secret of its token.
    pub secret: String,
    /// How it wants to be called.
    pub name: String,
    /// The request that is to be signed, PEM.
    pub csr: String,
}

/// What a node sends that wants its next certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The request that is to be signed, PEM.
    pub csr: String,
}

/// What a node gets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Issued {
    /// Which mesh.
    pub cluster: String,
    /// The node's id.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Its certificate, and what leads from it to who is trusted; PEM.
    pub certificate: String,
    /// Whom to trust, PEM.
    pub roots: String,
    /// Where managers answer.
    pub managers: Vec<String>,
    /// What managers sign with; for managers only. A secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// Why somebody gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Turned {
    /// In words, with what to do.
    pub why: String,
    /// Whether the same may succeed later, or at another manager.
    pub later: bool,
}

impl From<ControlError> for Turned {
    fn from(error: ControlError) -> Self {
        Self { why: error.to_string(), later: !matches!(error, ControlError::Refused(_)) }
    }
}

impl From<PkiError> for Turned {
    fn from(error: PkiError) -> Self {
        no(error.to_string())
    }
}

fn no(why: impl Into<String>) -> Turned {
    Turned { why: why.into(), later: false }
}

/// A manager's judgement of who comes.
#[derive(Clone)]
pub struct Admission {
    tls: Arc<Tls>,
    control: Control,
    port: u16,
    life: Duration,
    recheck: Duration,
}

impl Admission {
    /// With a manager's certificate; `port` is where all managers answer. Certificates that it signs are good for `life`.
    pub fn new(tls: Arc<Tls>, control: Control, port: u16, life: Duration) -> Self {
        Self { tls, control, port, life, recheck: Duration::from_mins(1) }
    }

    /// How often who is connected is looked at again; a minute by default.
    #[must_use]
    pub fn recheck_every(self, recheck: Duration) -> Self {
        Self { recheck, ..self }
    }

    /// This manager's certificate.
    pub fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    fn authority(&self) -> Result<Authority, Turned> {
        let authority = self.tls.files().authority().map_err(|error| {
            tracing::error!(%error, "cannot sign certificates");
            Turned { why: "this manager cannot sign certificates; its log says why".to_owned(), later: true }
        })?;
        authority.ok_or_else(|| Turned {
            why: "this node signs no certificates: ask a manager".to_owned(),
            later: true,
        })
    }

    /// Lets a node in.
    pub async fn join(&self, request: &JoinRequest) -> Result<Issued, Turned> {
        let authority = self.authority()?;
        let (serial, validity) = (new_serial(), Validity::begin(now(), self.life));
        let who = Applicant {
            secret: request.secret.parse().map_err(|error| no(format!("{error}")))?,
            node: node_of(&request.csr)?,
            name: request.name.parse().map_err(|error| no(format!("{error}")))?,
            certificate: Certificate { serial: hex(&serial), until: validity.until },
        };
        self.current().await?;
        let admitted = self.control.change(|world, fresh| change::admit(world, &who, fresh)).await;
        let role = admitted
            .inspect_err(|why| tracing::warn!(name = %who.name, "a node is not let in: {why}"))?
            .result;
        tracing::info!(name = %who.name, id = %who.node, %role, "a node is let in");
        self.issue(&authority, who.node, role, &request.csr, serial, validity)
    }

    /// Gives a node its next certificate. Who it is, its present one says.
    pub async fn renew(&self, peer: &Peer, request: &RenewRequest) -> Result<Issued, Turned> {
        let authority = self.authority()?;
        // What cannot be signed must change nothing.
        node_of(&request.csr)?;
        let (serial, validity) = (new_serial(), Validity::begin(now(), self.life));
        let certificate = Certificate { serial: hex(&serial), until: validity.until };
        self.current().await?;
        let change =
            self.control.change(|world, fresh| change::renew(world, &peer.node, certificate.clone(), fresh));
        let role = change.await?.result;
        tracing::info!(id = %peer.node, %role, "a node has its next certificate");
        self.issue(&authority, peer.node.clone(), role, &request.csr, serial, validity)
    }

    async fn current(&self) -> Result<(), Turned> {
        let current = tokio::time::timeout(CATCH_UP * 4, self.control.current()).await;
        match current {
            Ok(Err(error)) => Err(Turned { why: error.to_string(), later: true }),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn issue(
        &self,
        authority: &Authority,
        node: NodeId,
        role: Role,
        csr: &str,
        serial: [u8; 16],
        validity: Validity,
    ) -> Result<Issued, Turned> {
        let subject = Subject { node: node.clone(), role, addresses: Vec::new() };
        let world = self.control.world();
        let managers =
            world.managers().map(|manager| SocketAddr::new(manager.address, self.port).to_string());
        Ok(Issued {
            cluster: authority.cluster().to_owned(),
            node,
            role,
            certificate: authority.issue(csr, &subject, serial, validity)?,
            roots: authority.roots_pem(),
            managers: managers.collect(),
            authority: (role == Role::Manager).then(|| authority.key_pem()),
        })
    }

    /// As what a node is let in now; `Err` says why not.
    pub fn standing(&self, peer: &Peer) -> Result<Caller, String> {
        let world = self.control.world();
        if !change::is_certified(&world, &peer.node, now()) {
            peer.validity.check(now(), &format!("node {}", peer.node.short()))?;
        }
        let role = change::standing(&world, &peer.node, &peer.serial, peer.role)?;
        Ok(Caller::Node(peer.node.clone(), role))
    }

    /// Returns when a node is no longer let in; who has no certificate may ask for one, and not stay.
    pub async fn turned_out(&self, peer: Option<&Peer>) {
        let Some(peer) = peer else { return tokio::time::sleep(STRANGER).await };
        loop {
            tokio::time::sleep(self.recheck).await;
            if let Err(why) = self.standing(peer) {
                tracing::info!("a connection ends: {why}");
                return;
            }
        }
    }

    /// What is to be committed for a caller. A refusal that rests on a copy which lags behind is looked at again.
    pub async fn may_commit(&self, caller: &Caller, txn: Txn) -> Result<Txn, Forbidden> {
        if !matches!(caller, Caller::Node(_, Role::Worker)) {
            return rights::may_commit(&self.control.world(), caller, txn);
        }
        let known = txn.compares.iter().filter_map(|compare| match compare {
            Compare::Modified(_, rev) => Some(*rev),
            Compare::Absent(_) | Compare::Exists(_) => None,
        });
        let known = known.max().unwrap_or_default();
        let _ = tokio::time::timeout(CATCH_UP, self.control.seen(known)).await;
        if let Ok(judged) = rights::may_commit(&self.control.world(), caller, txn.clone()) {
            return Ok(judged);
        }
        let _ = tokio::time::timeout(CATCH_UP, self.control.current()).await;
        rights::may_commit(&self.control.world(), caller, txn)
    }
}
