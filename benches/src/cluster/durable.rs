//! Whether what was acknowledged is there after `kill -9`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_agent::store::Store;
use mesh_core::kv::{Txn, TxnOutcome};
use mesh_tests::Etcd;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::report::Durable;

/// How many write at once.
const WRITERS: usize = 32;
/// How long it is written at least before each kill.
const WRITE: Duration = Duration::from_millis(700);
/// More rounds than this are not made for the sake of the number of writes.
const ROUNDS: usize = 200;

/// Writes, kills and starts again, for at least so many kills and so many writes, and then looks for every one.
pub(super) fn measure(runtime: &Runtime, kills: usize, writes: usize) -> Result<Durable> {
    super::say("writing over kill -9");
    let mut etcd = Etcd::on_disk(1)?;
    let mut acknowledged = BTreeSet::new();
    let (mut unknown, mut rounds) = (0, 0);
    while (rounds < kills || acknowledged.len() < writes) && rounds < ROUNDS {
        let end = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let key = format!("bench/{rounds}/{writer}");
            writers.push(write(runtime, super::store(&etcd)?, key, Arc::clone(&end)));
        }
        // At another moment of its work each time.
        std::thread::sleep(WRITE + Duration::from_millis(rounds as u64 * 37 % 300));
        etcd.kill()?;
        end.store(true, Ordering::Relaxed);
        etcd.start()?;
        for writer in writers {
            let (done, unsure) = runtime.block_on(writer)?;
            acknowledged.extend(done);
            unknown += unsure;
        }
        rounds += 1;
    }
    let began = Instant::now();
    let listing = runtime.block_on(super::store(&etcd)?.list("bench/"))?;
    ensure!(began.elapsed() < Duration::from_secs(60), "the list takes too long to be believed");
    let there: BTreeSet<_> = listing.kvs.into_iter().map(|kv| kv.key.to_string()).collect();
    let lost = acknowledged.difference(&there).count();
    Ok(Durable { kills: rounds, acknowledged: acknowledged.len(), unknown, lost })
}

/// Writes keys one after the other until it no longer goes: those that were acknowledged, and how many may be there.
fn write(
    runtime: &Runtime,
    store: impl Store,
    key: String,
    end: Arc<AtomicBool>,
) -> JoinHandle<(Vec<String>, usize)> {
    runtime.spawn(async move {
        let mut done = Vec::new();
        for number in 0.. {
            let (mut txn, key) = (Txn::default(), format!("{key}/{number}"));
            txn.put(&key, "x".repeat(100));
            match store.txn(txn).await {
                Ok(TxnOutcome::Committed { .. }) => done.push(key),
                Ok(TxnOutcome::Unknown { .. }) => return (done, 1),
                Ok(TxnOutcome::Conflict { .. }) | Err(_) => return (done, 0),
            }
            if end.load(Ordering::Relaxed) {
                break;
            }
        }
        (done, 0)
    })
}
