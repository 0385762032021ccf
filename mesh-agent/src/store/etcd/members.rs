//! **Effect.** What managers ask of their own etcd beside records: who is a member, and how each fares.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Error, MemberAddOptions};
use tokio::time::timeout;

use super::dial::dial;
use super::failure::Failure;
use super::link::Whom;
use super::options::{Endpoint, EtcdOptions};
use super::session::Session;
use super::{EtcdStore, identity};
use crate::store::StoreError;

/// How long a member may take to say how it fares.
const ANSWER: Duration = Duration::from_millis(800);
/// How long a change of the members may take.
const CHANGE: Duration = Duration::from_secs(5);

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No member takes it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// etcd says no.
    #[error("{0}")]
    Refused(String),
}

/// How one member fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberHealth {
    /// etcd's number for it.
    pub id: u64,
    /// That of the leader, as this one knows; 0: there is none.
    pub leader: u64,
    /// `3.4.23`
    pub version: String,
    /// The database's size, bytes.
    pub size: u64,
    /// How far it has written down what the members agreed on.
    pub index: u64,
    /// It has no vote yet.
    pub learner: bool,
    /// What it says is wrong, such as `NOSPACE`.
    pub alarms: Vec<String>,
}

impl EtcdStore {
    /// Which members are spoken to from now on.
    pub fn set_endpoints(&self, endpoints: Vec<Endpoint>) {
        self.link.set_endpoints(endpoints);
    }

    /// All members: etcd's number, name, peer URL, whether it is a learner.
    pub async fn members(&self) -> Result<Vec<(u64, String, String, bool)>, StoreError> {
        let listed = self.link.ask(Whom::Any, |session| async move {
            let mut members = session.members();
            session.ask(0, async move { members.member_list().await }).await
        });
        let listed = listed.await.map_err(|failure| self.failed(failure))?;
        let members = listed.members().iter();
        Ok(members
            .map(|member| {
                let peer = member.peer_urls().first().cloned().unwrap_or_default();
                (member.id(), member.name().to_owned(), peer, member.is_learner())
            })
            .collect())
    }

    /// Asks a member, whatever it is worth.
    pub async fn health_of(&self, endpoint: &Endpoint) -> Option<MemberHealth> {
        timeout(ANSWER, health(endpoint, self.link.options())).await.ok()?
    }

    /// Lets a node in, as a learner.
    pub async fn add_learner(&self, peer: String) -> Result<(), AdminError> {
        let options = MemberAddOptions::new().with_is_learner();
        self.change(
            |session| async move { session.members().member_add([peer], Some(options)).await.map(drop) },
        )
        .await
    }

    /// Gives a learner a vote.
    pub async fn promote(&self, id: u64) -> Result<(), AdminError> {
        self.change(|session| async move { session.members().member_promote(id).await.map(drop) }).await
    }

    /// Lets a member go.
    pub async fn remove_member(&self, id: u64) -> Result<(), AdminError> {
        self.change(|session| async move { session.members().member_remove(id).await.map(drop) }).await
    }

    async fn change<F>(&self, request: impl FnOnce(Arc<Session>) -> F) -> Result<(), AdminError>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let session = self.link.any(tokio::time::Instant::now() + CHANGE).await?;
        match timeout(CHANGE, request(Arc::clone(&session))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Error::GRpcStatus(status))) => Err(AdminError::Refused(status.message().to_owned())),
            Ok(Err(error)) => Err(AdminError::Refused(error.to_string())),
            Err(_) => Err(AdminError::Refused("request timed out".to_owned())),
        }
    }

    /// Begins a mesh that there is already elsewhere, and whose records come here.
    pub async fn begin(options: EtcdOptions, mesh: &str) -> Result<Self, StoreError> {
        let store = Self::new(options);
        let at = store.link.place();
        let Some(endpoint) = store.link.endpoints().into_iter().next() else {
            return Err(store.link.unavailable("there is no endpoint".to_owned()));
        };
        let began = async {
            let mut client = dial(&endpoint, store.link.options()).await?;
            let failed = |error| Failure::of(&at, &error);
            let header = client.get("/", None).await.map_err(failed)?;
            let cluster = header.header().map(|header| header.cluster_id()).unwrap_or_default();
            identity::begin_as(client.kv_client(), store.link.keys(), cluster, mesh.to_owned())
                .await
                .map_err(failed)
        };
        began.await.map_err(|failure: Failure| failure.into_error(&at))?;
        Ok(store)
    }
}

async fn health(endpoint: &Endpoint, options: &EtcdOptions) -> Option<MemberHealth> {
    let client: Client = dial(endpoint, options).await.ok()?;
    let status = client.maintenance_client().status().await.ok()?;
    let alarms = status.errors().iter().filter_map(|error| {
        ["NOSPACE", "CORRUPT"].into_iter().find(|alarm| error.contains(alarm)).map(str::to_owned)
    });
    Some(MemberHealth {
        id: status.header()?.member_id(),
        leader: status.leader(),
        version: status.version().to_owned(),
        size: u64::try_from(status.db_size()).unwrap_or(0),
        index: status.raft_index(),
        learner: status.is_learner(),
        alarms: alarms.collect(),
    })
}
