//! **Effect.** A node's own records move into an etcd that others run, and the records of the only node of an etcd back to it.
//!
//! The agent does not run meanwhile, which stops no traffic. What says that the records count there is written last, so
//! that an attempt that was broken off is taken up again, and one that was not is never repeated.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use mesh_core::backup::Backup;
use mesh_core::kv::TxnOutcome;
use mesh_core::model::NodeId;
use mesh_core::records::GENERATION;

use super::Store;
use super::etcd::{EtcdOptions, EtcdStore};
use super::local::LocalStore;
use crate::control::now;
use crate::disk;

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
    fill(&backup, &store, progress).await
}

/// Moves the records of an etcd into a local store, of which there is none yet; how many there are. Only where no other
/// node has its records there. What there was is written down as `records.before`, a backup.
pub async fn from_etcd(
    state_dir: &Path,
    store: &EtcdStore,
    node: &NodeId,
    mesh: Option<&str>,
    progress: impl Fn(usize, usize),
) -> anyhow::Result<usize> {
    let listing = store.list("").await.context("cannot read the records")?;
    if let Some(mesh) = mesh.filter(|mesh| *mesh != listing.cluster) {
        bail!(
            "another mesh ({}) keeps its records there, and this node belongs to {mesh}: nothing was changed",
            listing.cluster
        );
    }
    let live = listing.kvs.iter().filter_map(|kv| kv.key.strip_prefix("live/"));
    let live: BTreeSet<_> = live.map(NodeId::new).collect();
    let backup = Backup::of(listing);
    backup.is_sole(node, &live).map_err(anyhow::Error::msg)?;
    let moved = state_dir.join("store.moved.redb");
    let into = LocalStore::make(&moved, &backup.cluster)?;
    let count = fill(&backup, &into, progress).await?;
    drop(into);
    disk::write_bytes(&state_dir.join("records.before"), backup.to_text().as_bytes())?;
    // All of it is there before it is what the agent opens.
    std::fs::rename(&moved, state_dir.join("store.redb"))?;
    disk::remove(&moved.with_extension("lock"))?;
    Ok(count)
}

async fn fill(backup: &Backup, store: &dyn Store, progress: impl Fn(usize, usize)) -> anyhow::Result<usize> {
    let txns = backup.fill(Vec::new(), 0, now());
    let (all, mut done) = (txns.iter().map(|txn| txn.ops.len()).sum(), 0);
    for txn in txns {
        let count = txn.ops.len();
        match store.txn(txn).await? {
            TxnOutcome::Committed { .. } => done += count,
            other => bail!("the records were not taken: {other:?}; run this again"),
        }
        progress(done, all);
    }
    Ok(all)
}
