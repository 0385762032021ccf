//! **Effect.** How long a store takes: what is asked of it is counted, with its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use mesh_core::kv::{LeaseId, Listing, Rev, Txn, TxnOutcome};
use tokio::time::Instant;

use super::{Batches, Store, StoreError, StoreStatus};

/// What came of requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many were answered, or given up.
    pub requests: u64,
    /// Those that failed, or of which nobody knows what became.
    pub failed: u64,
    /// How long all of them took, microseconds.
    pub micros: u64,
}

/// What is asked of a store.
#[derive(Debug, Clone, Copy)]
enum Request {
    List,
    Watch,
    Txn,
    Lease,
    KeepAlive,
    Status,
}

/// As they are called, in the order of [`Request`].
const NAMES: [&str; 6] = ["list", "watch", "txn", "lease", "keep_alive", "status"];

/// What came of all requests since the agent's start.
#[derive(Debug, Default)]
pub struct Times([[AtomicU64; 3]; NAMES.len()]);

impl Times {
    /// By kind.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, Taken)> {
        NAMES.into_iter().zip(&self.0).map(|(name, [requests, failed, micros])| {
            let [requests, failed, micros] = [requests, failed, micros].map(|count| count.load(Relaxed));
            (name, Taken { requests, failed, micros })
        })
    }

    fn add(&self, request: Request, failed: bool, took: Duration) {
        let [requests, failures, micros] = &self.0[request as usize];
        requests.fetch_add(1, Relaxed);
        failures.fetch_add(u64::from(failed), Relaxed);
        micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// A store whose requests are counted.
pub struct TimedStore {
    store: Arc<dyn Store>,
    times: Arc<Times>,
}

impl TimedStore {
    /// Counts what is asked of a store from now on.
    pub fn new(store: Arc<dyn Store>, times: Arc<Times>) -> Self {
        Self { store, times }
    }

    async fn time<T>(
        &self,
        request: Request,
        answer: impl Future<Output = Result<T, StoreError>> + Send,
        failed: impl Fn(&T) -> bool + Send,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = answer.await;
        self.times.add(request, answer.as_ref().map_or(true, failed), began.elapsed());
        answer
    }
}

#[async_trait]
impl Store for TimedStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.time(Request::List, self.store.list(prefix), |_| false).await
    }

    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        self.time(Request::Watch, self.store.watch(prefix, after), |_| false).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let unknown = |outcome: &TxnOutcome| matches!(outcome, TxnOutcome::Unknown { .. });
        self.time(Request::Txn, self.store.txn(txn), unknown).await
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.time(Request::Lease, self.store.lease(ttl), |_| false).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.time(Request::KeepAlive, self.store.keep_alive(lease), |()| false).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.time(Request::Status, self.store.status(), |_| false).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::LocalStore;

    #[tokio::test]
    async fn requests_are_counted_by_kind_and_by_what_came_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let times = Arc::new(Times::default());
        let store = Arc::new(LocalStore::open(dir.path().join("store.redb")).unwrap());
        let store = TimedStore::new(store, Arc::clone(&times));
        let mut txn = Txn::default();
        txn.put("a", "1");
        store.txn(txn).await.unwrap();
        store.list("").await.unwrap();
        store.list("a").await.unwrap();
        assert!(store.keep_alive(LeaseId(99)).await.is_err());
        let counted =
            |kind: &str| times.read().find(|(name, _)| *name == kind).map(|(_, taken)| taken).unwrap();
        assert_eq!((counted("txn").requests, counted("txn").failed), (1, 0));
        assert_eq!((counted("list").requests, counted("list").failed), (2, 0));
        assert_eq!((counted("keep_alive").requests, counted("keep_alive").failed), (1, 1));
        assert!(counted("txn").micros > 0);
        assert_eq!(counted("lease"), Taken::default());
    }
}
