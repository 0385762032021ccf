//! **Effect.** The store in etcd, compared with the local one.

use std::sync::atomic::{AtomicUsize, Ordering};

use mesh_agent::store::Store;
use mesh_agent::store::conformance::{commit, next_events, put};
use mesh_agent::store::etcd::{EtcdOptions, EtcdStore};
use mesh_core::kv::{Batch, Compare, Event, KeyValue, Rev, Txn, TxnOutcome};
use mesh_tests::Etcd;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::here::Local;
use super::random::txn;
use super::subject::options;

/// Which revision of the local store is which of etcd's, where others write, too.
#[derive(Default)]
struct Revs {
    etcd: Vec<Rev>,
}

impl Revs {
    /// Both stores came to these.
    fn came(&mut self, local: Rev, etcd: Rev) {
        if local.0 as usize == self.etcd.len() {
            self.etcd.push(etcd);
        }
        assert_eq!(local.0 as usize + 1, self.etcd.len(), "revisions of the local store have no gap");
    }

    fn to_etcd(&self, local: Rev) -> Rev {
        match local {
            Rev(0) => Rev(0),
            rev => self.etcd.get(rev.0 as usize).copied().unwrap_or(Rev(u64::MAX)),
        }
    }

    /// The newest that is no newer.
    fn to_local(&self, etcd: Rev) -> Rev {
        Rev(self.etcd.partition_point(|rev| *rev <= etcd) as u64 - 1)
    }

    fn kv(&self, kv: KeyValue) -> KeyValue {
        KeyValue { created: self.to_local(kv.created), modified: self.to_local(kv.modified), ..kv }
    }

    fn batch(&self, batch: Batch) -> Batch {
        let events = batch.events.into_iter().map(|event| match event {
            Event::Put(kv) => Event::Put(self.kv(kv)),
            delete @ Event::Delete(_) => delete,
        });
        Batch { rev: self.to_local(batch.rev), events: events.collect() }
    }

    fn txn(&self, txn: &Txn) -> Txn {
        let compares = txn.compares.iter().map(|compare| match compare {
            Compare::Modified(key, rev) => Compare::Modified(key.clone(), self.to_etcd(*rev)),
            other => other.clone(),
        });
        Txn { compares: compares.collect(), ops: txn.ops.clone() }
    }

    fn outcome(&self, outcome: TxnOutcome) -> TxnOutcome {
        match outcome {
            TxnOutcome::Committed { rev } => TxnOutcome::Committed { rev: self.to_local(rev) },
            TxnOutcome::Conflict { rev, found } => TxnOutcome::Conflict {
                rev: self.to_local(rev),
                found: found.into_iter().map(|kv| self.kv(kv)).collect(),
            },
            unknown @ TxnOutcome::Unknown { .. } => unknown,
        }
    }
}

/// What a watch shows up to the key `end`.
async fn shown(store: &dyn Store, after: Rev) -> Vec<Batch> {
    let mut watch = store.watch("", after).await.unwrap();
    let mut all: Vec<Batch> = Vec::new();
    while !all.last().is_some_and(|batch| batch.events.iter().any(|event| event.key() == "end")) {
        all.push(next_events(&mut watch).await);
    }
    all
}

async fn compare(local: &dyn Store, etcd: &dyn Store, txns: &[Txn]) -> Result<(), TestCaseError> {
    let mut revs = Revs::default();
    revs.came(Rev(0), etcd.status().await.unwrap().rev);
    let start = revs.etcd[0];
    let watching = async { Ok(tokio::join!(shown(local, Rev(0)), shown(etcd, start))) };
    let writing = async {
        for txn in txns {
            let expected = local.txn(txn.clone()).await;
            let found = etcd.txn(revs.txn(txn)).await;
            if let (Ok(TxnOutcome::Committed { rev: ours }), Ok(TxnOutcome::Committed { rev: theirs })) =
                (&expected, &found)
                && ours.0 as usize == revs.etcd.len()
            {
                revs.came(*ours, *theirs);
            }
            prop_assert_eq!(found.map(|outcome| revs.outcome(outcome)), expected);
        }
        let (ours, theirs) = (commit(local, put("end", "")).await, commit(etcd, put("end", "")).await);
        revs.came(ours, theirs);
        Ok(revs)
    };
    let ((ours, theirs), revs) = tokio::try_join!(watching, writing)?;
    let theirs: Vec<_> = theirs.into_iter().map(|batch| revs.batch(batch)).collect();
    prop_assert_eq!(theirs, ours, "live");
    let half = Rev((revs.etcd.len() as u64 - 1) / 2);
    let theirs = shown(etcd, revs.to_etcd(half)).await;
    let theirs: Vec<_> = theirs.into_iter().map(|batch| revs.batch(batch)).collect();
    prop_assert_eq!(theirs, shown(local, half).await, "resumed");
    for prefix in ["", "c/"] {
        let (ours, theirs) = (local.list(prefix).await.unwrap(), etcd.list(prefix).await.unwrap());
        prop_assert_eq!(revs.to_local(theirs.rev), ours.rev);
        let theirs: Vec<_> = theirs.kvs.into_iter().map(|kv| revs.kv(kv)).collect();
        prop_assert_eq!(theirs, ours.kvs);
    }
    Ok(())
}

/// The same random transactions give the same outcomes, the same events in the same order, the same lists.
#[test]
fn etcd_does_what_the_local_store_does() {
    let etcd = Etcd::on_loopback(1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let case = AtomicUsize::new(0);
    let txns = prop::collection::vec(txn(), 1..30);
    runner
        .run(&txns, |txns| {
            runtime.block_on(async {
                let prefix = format!("/mesh/{}/", case.fetch_add(1, Ordering::Relaxed));
                let store = EtcdStore::new(EtcdOptions { prefix, ..options(&etcd.urls()) });
                compare(&*Local::fresh().store, &store, &txns).await
            })
        })
        .unwrap();
}
