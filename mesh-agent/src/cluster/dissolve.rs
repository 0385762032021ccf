//! **Effect.** The only node of a cluster keeps its records itself again. Its agent does not run meanwhile; its member of etcd
//! does, to the end.

use std::path::Path;

use anyhow::{Context, bail};
use mesh_core::model::{NodeId, Role};

use super::{ClusterFile, Own};
use crate::disk;
use crate::pki::Files;
use crate::store::etcd::{EtcdStore, Known};
use crate::store::migrate;

/// Moves the records back; how many there are. As long as there is `cluster.json` they count where they were: an attempt that was
/// broken off is begun anew.
pub async fn dissolve(
    state_dir: &Path,
    node: &NodeId,
    known: Known,
    progress: impl Fn(usize, usize),
) -> anyhow::Result<usize> {
    let Some(file) = ClusterFile::load(state_dir)? else {
        bail!("this node belongs to no cluster: it keeps its records itself already");
    };
    if file.role != Role::Manager {
        bail!(
            "this node is a worker: its managers keep the records, and 'mesh cluster leave' leaves them there"
        );
    }
    let own = Own::of(state_dir);
    own.ensure().await?;
    let store = EtcdStore::new(own.options(true, &[], known)?);
    let members = store.members().await.context("this node's member of etcd does not answer")?;
    if members.len() > 1 {
        bail!(
            "{} managers keep the records together: demote the others first ('mesh cluster demote NODE'), have them leave, \
             and remove them",
            members.len()
        );
    }
    let count = migrate::from_etcd(state_dir, &store, node, Some(&file.cluster), progress).await?;
    disk::remove(&state_dir.join("cluster.json"))?;
    own.remove().await?;
    Files::of(state_dir).remove()?;
    Ok(count)
}
