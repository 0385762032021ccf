//! **Effect.** The store in etcd: for many nodes, each of which speaks to etcd itself.
//!
//! etcd's semantics are ours; what is added here is what a client of it must do to be told the truth, always, and soon:
//! choose a member and leave one that is silent (`link`), find out what became of a transaction (`marks`), follow a
//! watch that may fall silent or be compacted away (`watch`), and never take another store for its own
//! (`identity`). See docs/adr/0018.

mod dial;
mod failure;
mod identity;
mod keys;
mod link;
mod list;
mod marks;
mod members;
mod options;
mod order;
mod secrets;
mod session;
mod txn;
mod version;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::StatusResponse;
use mesh_core::kv::{LeaseId, Listing, Rev, Txn, TxnOutcome};

use self::failure::Failure;
use self::link::{Link, Whom};
use self::marks::Marks;
pub use self::members::{AdminError, MemberHealth};
pub use self::options::{Endpoint, EtcdOptions, Known, TlsFiles};
pub(crate) use self::version::check as check_version;
use super::{Batches, Store, StoreError, StoreStatus};

/// The store in etcd.
#[derive(Debug)]
pub struct EtcdStore {
    link: Arc<Link>,
    marks: Marks,
}

impl EtcdStore {
    /// Nothing is called before something is asked of the store, so that a node can start without it.
    pub fn new(options: EtcdOptions) -> Self {
        Self { link: Arc::new(Link::new(options)), marks: Marks::default() }
    }

    /// Which member is spoken to, if any is at present.
    pub async fn member(&self) -> Option<String> {
        self.link.member().await
    }

    fn failed(&self, failure: Failure) -> StoreError {
        failure.into_error(&self.link.place())
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        list::run(&self.link, prefix).await
    }

    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        watch::open(&self.link, prefix, after).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        txn::run(&self.link, &self.marks, &txn).await
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX);
        // Of two that were asked for without an answer, one is never used and ends by itself.
        let granted = self.link.ask(Whom::Own, |session| async move {
            let mut leases = session.leases();
            session.ask(0, async move { leases.grant(seconds.max(1), None).await }).await
        });
        let granted = granted.await.map_err(|failure| self.failed(failure))?;
        Ok(LeaseId(u64::try_from(granted.id()).unwrap_or(0)))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let Ok(id) = i64::try_from(lease.0) else { return Err(StoreError::LeaseGone(lease)) };
        let kept = self.link.ask(Whom::Own, |session| async move { marks::keep_alive(&session, id).await });
        match kept.await {
            Err(Failure::NoLease) => Err(StoreError::LeaseGone(lease)),
            kept => kept.map_err(|failure| self.failed(failure)),
        }
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let asked = self.link.ask(Whom::Any, |session| async move {
            let status = session.status().await?;
            let now = watch::newest(&session, self.link.keys()).await?;
            Ok((session.mesh.clone(), now, status))
        });
        let (mesh, now, status) = asked.await.map_err(|failure| self.failed(failure))?;
        Ok(StoreStatus {
            cluster: mesh,
            rev: now,
            engine: self.link.engine().to_owned(),
            size: u64::try_from(status.db_size()).unwrap_or(0),
            problem: problem(&status),
        })
    }
}

/// What etcd itself says is wrong.
fn problem(status: &StatusResponse) -> Option<String> {
    let alarm = status.errors().iter().find(|error| error.contains("alarm:") || error.contains("NOSPACE"))?;
    if alarm.contains("NOSPACE") { Some(failure::full()) } else { Some(format!("etcd says: {alarm}")) }
}
