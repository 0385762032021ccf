//! All nodes come back at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;
use mesh_core::kv::Txn;
use mesh_tests::Etcd;
use tokio::runtime::Runtime;

use super::nodes::{Node, commit};
use super::report::Storm;

/// How long etcd is away.
const AWAY: Duration = Duration::from_secs(5);
/// How long a node may take to notice.
const NOTICED: Duration = Duration::from_secs(60);

/// Kills etcd, and waits until every node is in step with it again.
pub(super) fn measure(runtime: &Runtime, etcd: &mut Etcd, nodes: &[Node]) -> Result<Storm> {
    etcd.kill()?;
    runtime.block_on(async {
        let alone = nodes.iter().map(|node| async {
            let mut health = node.health.clone();
            tokio::time::timeout(NOTICED, health.wait_for(|health| !health.connected)).await??;
            anyhow::Ok(())
        });
        try_join_all(alone).await?;
        tokio::time::sleep(AWAY).await;
        anyhow::Ok(())
    })?;
    let began = Instant::now();
    etcd.start()?;
    let ready = began.elapsed();
    runtime.block_on(async {
        let mut txn = Txn::default();
        txn.put("bench/again", "x");
        let rev = commit(&super::store(etcd)?, txn).await?;
        let mut seen = try_join_all(nodes.iter().map(|node| node.has(rev))).await?;
        seen.sort();
        let at = |share: usize| seen.get((seen.len() * share / 100).min(seen.len() - 1));
        let after = |share| at(share).map_or(0.0, |at| (*at - began).saturating_sub(ready).as_secs_f64());
        Ok(Storm { etcd_ready_s: ready.as_secs_f64(), half_s: after(50), all_s: after(100) })
    })
}
