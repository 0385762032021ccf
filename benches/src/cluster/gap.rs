//! How long nothing can be written when the leader is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use mesh_agent::store::Store;
use mesh_agent::store::etcd::EtcdStore;
use mesh_core::kv::{Txn, TxnOutcome};
use mesh_tests::Etcd;
use tokio::runtime::Runtime;

use crate::times::Times;

/// How long it is written before and after.
const BEFORE: Duration = Duration::from_secs(1);
const AFTER: Duration = Duration::from_secs(5);
/// Between two writes.
const PACE: Duration = Duration::from_millis(5);

/// Kills the leader of three members, so many times.
pub(super) fn measure(runtime: &Runtime, times: usize) -> Result<Times> {
    super::say("killing leaders");
    let mut etcd = Etcd::on_disk(3)?;
    let mut gaps = Vec::new();
    for _ in 0..times {
        let end = Arc::new(AtomicBool::new(false));
        let writer = runtime.spawn(longest(super::store(&etcd)?, Arc::clone(&end)));
        std::thread::sleep(BEFORE);
        let leader = etcd.leader()?;
        etcd.member(leader).kill()?;
        std::thread::sleep(AFTER);
        end.store(true, Ordering::Relaxed);
        gaps.push(runtime.block_on(writer)?.as_secs_f64() * 1000.0);
        etcd.member(leader).start()?;
        etcd.member(leader).wait_ready()?;
    }
    Ok(Times::of(gaps))
}

/// The longest time from the end of one write that came through to that of the next.
async fn longest(store: EtcdStore, end: Arc<AtomicBool>) -> Duration {
    let (mut last, mut longest) = (None::<Instant>, Duration::ZERO);
    while !end.load(Ordering::Relaxed) {
        let mut txn = Txn::default();
        txn.put("bench/gap", "x");
        if let Ok(TxnOutcome::Committed { .. }) = store.txn(txn).await {
            longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
            last = Some(Instant::now());
        }
        tokio::time::sleep(PACE).await;
    }
    longest
}
