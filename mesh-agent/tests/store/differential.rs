//! **Effect.** An engine and the pure rules, given the same transactions, say and show the same.

use std::sync::Arc;

use futures_util::StreamExt;
use mesh_agent::store::conformance::Subject;
use mesh_agent::store::{Store, StoreError};
use mesh_core::kv::{Batch, KvState, Rev, Txn, TxnOutcome};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::random::txn;

/// What the rules say.
fn expected(state: &mut KvState, txn: &Txn) -> Result<TxnOutcome, StoreError> {
    Ok(match state.prepare(txn)? {
        Ok(batch) => {
            let rev = batch.rev;
            state.install(batch);
            TxnOutcome::Committed { rev }
        }
        Err(found) => TxnOutcome::Conflict { rev: state.rev(), found },
    })
}

async fn compare(store: Arc<dyn Store>, txns: &[Txn]) -> Result<(), TestCaseError> {
    let mut state = KvState::default();
    for txn in txns {
        prop_assert_eq!(store.txn(txn.clone()).await, expected(&mut state, txn));
    }
    for prefix in ["", "c/"] {
        let listing = store.list(prefix).await.unwrap();
        prop_assert_eq!(listing.rev, state.rev());
        prop_assert_eq!(listing.kvs, state.range(prefix).cloned().collect::<Vec<_>>());
        for after in [0, state.rev().0 / 2] {
            let mut watch = store.watch(prefix, Rev(after)).await.unwrap();
            let mut shown: Vec<Batch> = Vec::new();
            // The first heartbeat says that there is no more.
            loop {
                let batch = watch.next().await.unwrap().unwrap();
                if batch.events.is_empty() {
                    prop_assert_eq!(batch.rev, state.rev());
                    break;
                }
                shown.push(batch);
            }
            prop_assert_eq!(shown, state.since(Rev(after), prefix).unwrap());
        }
    }
    Ok(())
}

fn differential<S: Subject>(fresh: impl AsyncFn() -> S) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let txns = prop::collection::vec(txn(), 1..30);
    runner
        .run(&txns, |txns| {
            runtime.block_on(async {
                let subject = fresh().await;
                compare(subject.store(), &txns).await
            })
        })
        .unwrap();
}

#[test]
fn the_local_store_does_what_the_rules_say() {
    differential(async || super::here::Local::fresh());
}

#[test]
fn the_gateway_does_what_the_rules_say() {
    differential(async || super::Gateway::fresh().await);
}
