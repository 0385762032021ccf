//! **Effect.** A connection to a member that was looked at and found good.

use std::fmt;
use std::time::Duration;

use etcd_client::{Client, ClusterClient, Error, KvClient, LeaseClient, StatusResponse, WatchClient};
use mesh_core::kv::Rev;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::dial::dial;
use super::failure::Failure;
use super::identity;
use super::keys::Keys;
use super::options::{Endpoint, EtcdOptions};
use super::version;
use crate::store::StoreError;

/// How long a member may take for one answer. A frozen one takes connections and requests, and never answers.
pub(super) const ANSWER: Duration = Duration::from_millis(1500);
/// What a slow line may take longer for each so many bytes.
const PER_SECOND: usize = 1 << 20;

/// Why a store may be read, but not written to or followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It holds another mesh than this node's.
    AnotherMesh { found: String, ours: String },
    /// It is older than what was seen.
    WentBack { found: Rev, seen: Rev },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnotherMesh { found, ours } => {
                write!(f, "it holds the mesh {found}, and this node belongs to {ours}; nothing was done")
            }
            Self::WentBack { found, seen } => write!(
                f,
                "its history went back from revision {seen} to {found}, as if an old backup had been restored; \
                 nothing was done (restart the agent with --accept-deletions if that is meant)"
            ),
        }
    }
}

/// A connection to a member.
pub(super) struct Session {
    at: String,
    client: Client,
    /// Which mesh is there.
    pub(super) mesh: String,
    /// Which generation of its records.
    pub(super) generation: u64,
    /// The store's revision when the connection was made.
    pub(super) rev: Rev,
    /// What speaks against using it.
    pub(super) doubt: Option<Doubt>,
    /// Cancelled when it is no longer to be used, by anyone.
    gone: CancellationToken,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Session {
    /// Calls a member and looks whether it is good: it answers within a time, is of a version that we know, sees most
    /// of the others, and holds our mesh or none.
    pub(super) async fn open(
        endpoint: &Endpoint,
        options: &EtcdOptions,
        keys: &Keys,
        ours: Option<&str>,
        within: Duration,
    ) -> Result<Self, Failure> {
        let at = endpoint.url().to_owned();
        let mut client = dial(endpoint, options).await?;
        let status = answer(&at, within, client.status()).await?;
        version::check(status.version())
            .map_err(|why| Failure::Refused(StoreError::Denied { at: at.clone(), why }))?;
        if status.is_learner() {
            return Err(Failure::NotDone(
                "it has not caught up with the other members yet (learner)".to_owned(),
            ));
        }
        // A member that the majority cannot be reached from does not answer this read.
        let found = timeout(within, identity::find(&mut client, &at, keys, ours)).await;
        let found = found.map_err(|_| Failure::NotDone(silent(within)))??;
        let identity::Found { mesh, generation, rev } = found;
        Ok(Self { at, client, mesh, generation, rev, doubt: None, gone: CancellationToken::new() })
    }

    /// Its URL.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// Gives the connection up, for everyone who uses it.
    pub(super) fn leave(&self) {
        self.gone.cancel();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until it is given up.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    pub(super) fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(usize::MAX)
    }

    pub(super) fn watches(&self) -> WatchClient {
        self.client.watch_client().max_decoding_message_size(usize::MAX)
    }

    pub(super) fn leases(&self) -> LeaseClient {
        self.client.lease_client()
    }

    pub(super) fn members(&self) -> ClusterClient {
        self.client.cluster_client()
    }

    /// How the member fares.
    pub(super) async fn status(&self) -> Result<StatusResponse, Failure> {
        let mut client = self.client.maintenance_client();
        self.ask(0, async move { client.status().await }).await
    }

    /// Waits for an answer to a request of so many bytes, no longer than a sound member takes, and not when somebody
    /// else found out that this one is none.
    pub(super) async fn ask<T>(
        &self,
        bytes: usize,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let within = ANSWER + Duration::from_secs((bytes / PER_SECOND) as u64);
        tokio::select! {
            biased;
            answer = answer(&self.at, within, request) => answer,
            () = self.gone() => Err(Failure::Unsure("its connection was given up".to_owned())),
        }
    }
}

async fn answer<T>(
    at: &str,
    within: Duration,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match timeout(within, request).await {
        Ok(answer) => answer.map_err(|error| Failure::of(at, &error)),
        Err(_) => Err(Failure::Unsure(silent(within))),
    }
}

fn silent(within: Duration) -> String {
    format!("it did not answer within {:.1} s", within.as_secs_f64())
}
