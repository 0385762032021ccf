//! **Effect.** Lists of several pages.

use std::sync::atomic::{AtomicBool, Ordering};

use mesh_agent::store::conformance::commit;
use mesh_agent::store::{Store, StoreError};
use mesh_core::kv::Txn;

use super::subject::InEtcd;

const BLOCKS: usize = 6;
const KEYS: usize = 500;

async fn write(store: &dyn Store, block: usize, generation: usize) {
    let mut txn = Txn::default();
    for n in 0..KEYS {
        txn.put(format!("{block}/{n:03}"), generation.to_string());
    }
    commit(store, txn).await;
}

/// Blocks of keys are written in turn, the first one first: at no revision is a block newer than the one before. Pages of
/// different revisions would show that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_of_one_revision() {
    let subject = InEtcd::fresh();
    let store = &*subject.store;
    for block in 0..BLOCKS {
        write(store, block, 0).await;
    }
    let done = AtomicBool::new(false);
    let writing = async {
        for generation in 1.. {
            for block in 0..BLOCKS {
                write(store, block, generation).await;
            }
            if done.load(Ordering::Relaxed) {
                return generation;
            }
        }
        unreachable!("there are more numbers")
    };
    let listing = async {
        let mut newest = 0;
        for _ in 0..30 {
            let listing = store.list("").await.unwrap();
            assert_eq!(listing.kvs.len(), BLOCKS * KEYS);
            assert!(listing.kvs.iter().all(|kv| kv.modified <= listing.rev));
            let generations: Vec<usize> =
                listing.kvs.iter().step_by(KEYS).map(|kv| kv.value.parse().unwrap()).collect();
            let inside = listing
                .kvs
                .iter()
                .zip(0..)
                .all(|(kv, n)| kv.value.parse::<usize>().unwrap() == generations[n / KEYS]);
            assert!(inside && generations.is_sorted_by(|a, b| a >= b), "{generations:?}");
            newest = generations[0];
        }
        done.store(true, Ordering::Relaxed);
        newest
    };
    let (written, listed) = tokio::join!(writing, listing);
    assert!(listed > 1 && listed <= written, "it was written meanwhile: {listed} of {written}");
}

/// History that is compacted between two pages is no error: the list begins anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_between_pages_begins_the_list_anew() {
    let subject = InEtcd::fresh();
    for block in 0..BLOCKS {
        write(&*subject.store, block, 0).await;
    }
    let lists = async {
        let mut lists = 0;
        for _ in 0..40 {
            match subject.store.list("").await {
                Ok(listing) => assert_eq!(listing.kvs.len(), BLOCKS * KEYS),
                Err(StoreError::Unavailable { why, .. }) => assert!(why.contains("compacted"), "{why}"),
                Err(error) => panic!("{error}"),
            }
            lists += 1;
        }
        lists
    };
    let compactions = async {
        for generation in 1..12 {
            write(&*subject.store, 0, generation).await;
            subject.compact().await;
        }
    };
    let (lists, ()) = tokio::join!(lists, compactions);
    assert_eq!(lists, 40);
}
