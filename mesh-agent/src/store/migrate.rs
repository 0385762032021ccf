//! **Effect.** A node's own records move into an etcd that others run.
//!
//! The agent does not run meanwhile, which stops no traffic. What says that the records count there is written last, so
//! that an attempt that was broken off is taken up again, and one that was not is never repeated.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use mesh_core::backup::Backup;
use mesh_core::kv::TxnOutcome;
use mesh_core::records::GENERATION;

use super::Store;
use super::etcd::{EtcdOptions, EtcdStore};
use super::local::LocalStore;
use crate::control::now;

/// Copies the records of a local store into etcd; how many there are. `progress` is told of each step: so many of so
/// many.
pub async fn into_etcd(
    local: &Path,
    options: EtcdOptions,
    progress: impl Fn(usize, usize),
) -> anyhow::Result<usize> {
    ensure!(local.exists(), "this node has no records of its own: there is no {}", local.display());
    let from = LocalStore::open(local).context("stop the agent first, which stops no traffic")?;
    let backup = Backup::of(from.list("").await.context("cannot read the records of this node")?);
    let (prefix, mesh) = (options.prefix.clone(), backup.cluster.clone());
    let store = EtcdStore::begin(options, &mesh).await?;
    let there = store.list("").await?;
    if there.cluster != mesh {
        bail!(
            "another mesh ({}) keeps its records under {prefix} there, and this node belongs to {mesh}; nothing was \
             changed: choose another store.prefix",
            there.cluster
        );
    }
    if there.kvs.iter().any(|kv| *kv.key == *GENERATION) {
        bail!("the records of this mesh are there already, under {prefix}; nothing was changed");
    }
    let txns = backup.fill(Vec::new(), 0, now());
    let (all, mut done) = (txns.iter().map(|txn| txn.ops.len()).sum(), 0);
    for txn in txns {
        let count = txn.ops.len();
        match store.txn(txn).await? {
            TxnOutcome::Committed { .. } => done += count,
            other => bail!("etcd did not take the records: {other:?}; run this again"),
        }
        progress(done, all);
    }
    Ok(all)
}
