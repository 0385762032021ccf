//! How many transactions the store takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use mesh_core::kv::Txn;
use mesh_tests::Etcd;
use tokio_util::task::TaskTracker;

use super::nodes::commit;
use super::report::Writes;

/// How long it is written.
const FOR: Duration = Duration::from_secs(5);
/// How many write at once, over one connection each.
const WRITERS: usize = 16;

/// Writes signs of life of nodes that there are none of, as fast as goes.
pub(super) async fn measure(etcd: &Etcd) -> Result<Writes> {
    let (done, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (store, done) = (super::store(etcd)?, Arc::clone(&done));
        writers.push(TaskTracker::new().spawn(async move {
            while began.elapsed() < FOR {
                let mut txn = Txn::default();
                txn.put(format!("bench/{writer}"), "x".repeat(200));
                commit(&store, txn).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    Ok(Writes { per_second: done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64() })
}
