//! **Effect.** What every engine of the store must do, as tests that each engine runs.
//!
//! It is part of the library, not of the tests, so that an engine in another crate is held to the same:
//!
//! ```text
//! mesh_agent::store_conformance!(async { MyEngine::fresh().await });
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::join_all;
use mesh_core::kv::{Batch, Event, HISTORY, KeyValue, LeaseId, Op, Rev, Txn, TxnOutcome};

use super::{Batches, Store, WatchEnd};

mod cases;
mod leases;
mod watches;

pub use cases::*;
pub use leases::*;
pub use watches::*;

/// An empty store to be tested, and all that must live as long.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Makes the store forget its history up to now. By itself it does so after many revisions.
    async fn forget_history(&self) {
        let store = self.store();
        for round in 0..=HISTORY / 100 {
            join_all((0..100).map(|n| commit(&*store, put(&format!("filler/{n}"), &round.to_string()))))
                .await;
        }
    }
}

/// One test per thing that an engine must do; the argument makes a future of a fresh [`Subject`].
#[macro_export]
macro_rules! store_conformance {
    ($make:expr) => {
        $crate::store_conformance!(@ $make;
            claims_are_given_once, compare_and_set, transactions_are_whole, watches_have_no_gap,
            watches_resume_where_they_were, lists_are_at_one_revision, heartbeats_come, forgotten_history_is_said,
            a_lease_takes_all_its_keys_at_once, a_lease_that_is_kept_stays, nonsense_writes_nothing,
            prefixes_are_kept_apart, a_key_that_comes_back_is_new, nothing_changed_is_no_revision,
            large_values_are_kept
        );
    };
    (@ $make:expr; $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let subject = $make.await;
                $crate::store::conformance::$case(&subject).await;
            }
        )*
    };
}

/// A transaction of one write.
pub fn put(key: &str, value: &str) -> Txn {
    let mut txn = Txn::default();
    txn.put(key, value);
    txn
}

/// Runs a transaction that must succeed.
pub async fn commit(store: &dyn Store, txn: Txn) -> Rev {
    match store.txn(txn).await {
        Ok(TxnOutcome::Committed { rev }) => rev,
        other => panic!("a transaction without conditions must succeed: {other:?}"),
    }
}

/// A write under a lease.
fn leased(key: &str, lease: LeaseId) -> Op {
    Op::Put { key: key.to_owned(), value: "alive".to_owned(), lease: Some(lease) }
}

/// The next revision of a watch that has events; none within ten seconds is a failure.
pub async fn next_events(watch: &mut Batches) -> Batch {
    let found = async {
        loop {
            match watch.next().await {
                Some(Ok(batch)) if batch.events.is_empty() => {}
                Some(Ok(batch)) => return batch,
                end => panic!("the watch ended: {end:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("the watch shows what was written")
}

/// How a watch ends, which it must within ten seconds.
pub async fn end_of(watch: &mut Batches) -> WatchEnd {
    let end = async {
        loop {
            match watch.next().await {
                Some(Ok(_)) => {}
                Some(Err(end)) => return end,
                None => panic!("a watch ends with a reason"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the watch ends")
}

/// What a list says, by key.
async fn listed(store: &dyn Store, prefix: &str) -> BTreeMap<Arc<str>, KeyValue> {
    let listing = store.list(prefix).await.expect("a list");
    listing.kvs.into_iter().map(|kv| (Arc::clone(&kv.key), kv)).collect()
}

/// Plays events on what was listed.
fn play(all: &mut BTreeMap<Arc<str>, KeyValue>, batch: Batch) {
    for event in batch.events {
        match event {
            Event::Put(kv) => drop(all.insert(Arc::clone(&kv.key), kv)),
            Event::Delete(key) => drop(all.remove(key.as_str())),
        }
    }
}
