//! **Effect.** Which mesh the records are of: written once into an empty prefix, read on every connection.
//!
//! It names the etcd cluster, too: records that were copied into another etcd, as by restoring a backup, are told
//! from the ones that they were copied from.

use etcd_client::{Client, Compare, CompareOp, GetOptions, GetResponse, KvClient, Txn, TxnOp};
use mesh_core::kv::Rev;
use mesh_core::records::{GENERATION, generation, to_json};
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::keys::{Keys, rev};
use crate::store::StoreError;

/// The layout of the keys that this version reads and writes.
const FORMAT: u32 = 1;

/// The record of which mesh this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    format: u32,
    mesh: String,
    /// The id of the etcd cluster that it was written into, hexadecimal as etcdctl shows it.
    etcd: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Unlike any other mesh's.
    pub(super) mesh: String,
    /// Which generation of its records.
    pub(super) generation: u64,
    /// The store's newest revision.
    pub(super) rev: Rev,
}

/// Reads which mesh is there. Where there is none, and nothing else, `ours` says that this node would have to know
/// it, or else one begins here.
pub(super) async fn find(
    client: &mut Client,
    at: &str,
    keys: &Keys,
    ours: Option<&str>,
) -> Result<Found, Failure> {
    let failed = |error| Failure::of(at, &error);
    let wrong = |why: String| Failure::Refused(StoreError::Denied { at: at.to_owned(), why });
    let found = client.get(keys.identity(), None).await.map_err(failed)?;
    if let Some(found) = read(&found, keys).map_err(wrong)? {
        let written = client.get(keys.record(GENERATION), None).await.map_err(failed)?;
        let written: Vec<_> = written.kvs().iter().filter_map(|kv| keys.read(kv)).collect();
        return Ok(Found { generation: generation(&written), ..found });
    }
    let all = GetOptions::new().with_prefix().with_count_only();
    let others = client.get(keys.prefix(), Some(all)).await.map_err(failed)?.count();
    if others > 0 {
        return Err(wrong(format!(
            "{others} keys begin with {prefix}, and {identity} is not among them, so they are not a mesh's; nothing \
             was changed (choose another store.prefix)",
            prefix = keys.prefix(),
            identity = keys.identity()
        )));
    }
    if let Some(ours) = ours {
        return Err(wrong(format!(
            "nothing is there under {}, but this node belongs to the mesh {ours}; nothing was changed (to move the \
             node for good, stop its agent and remove its cache of the store)",
            keys.prefix()
        )));
    }
    let cluster = found.header().map(|header| header.cluster_id()).unwrap_or_default();
    begin(client, keys, cluster).await.map_err(failed)?;
    let found = client.get(keys.identity(), None).await.map_err(failed)?;
    read(&found, keys)
        .map_err(wrong)?
        .ok_or_else(|| Failure::NotDone("what was just written is gone again".to_owned()))
}

/// Of two who begin at once, one does.
async fn begin(client: &mut Client, keys: &Keys, cluster: u64) -> Result<(), etcd_client::Error> {
    let mesh: String = crate::control::random().iter().map(|byte| format!("{byte:02x}")).collect();
    begin_as(client.kv_client(), keys, cluster, mesh).await
}

/// The same for a mesh that there is already elsewhere, and whose records come here.
pub(super) async fn begin_as(
    mut client: KvClient,
    keys: &Keys,
    cluster: u64,
    mesh: String,
) -> Result<(), etcd_client::Error> {
    let identity = to_json(&Identity { format: FORMAT, mesh: mesh.clone(), etcd: format!("{cluster:x}") });
    let key = keys.identity();
    let txn = Txn::new()
        .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
        .and_then([TxnOp::put(key, identity, None)]);
    if client.txn(txn).await?.succeeded() {
        tracing::info!(%mesh, prefix = keys.prefix(), "a new mesh begins in etcd");
    }
    Ok(())
}

/// What an answer says; `None`: there is no such key.
fn read(answer: &GetResponse, keys: &Keys) -> Result<Option<Found>, String> {
    let (Some(kv), Some(header)) = (answer.kvs().first(), answer.header()) else { return Ok(None) };
    let key = keys.identity();
    let identity: Identity = serde_json::from_slice(kv.value())
        .map_err(|error| format!("{key} does not say which mesh this is ({error}); nothing was changed"))?;
    if identity.format != FORMAT {
        return Err(format!(
            "the mesh in {} was written by a newer version (format {}); upgrade this agent",
            keys.prefix(),
            identity.format
        ));
    }
    let cluster = format!("{:x}", header.cluster_id());
    if identity.etcd != cluster {
        let adopted = to_json(&Identity { etcd: cluster.clone(), ..identity.clone() });
        return Err(format!(
            "the records of mesh {} are a copy: they were written into etcd cluster {}, and this is {cluster}, as after \
             restoring a backup; nothing was changed (if no other copy is in use: etcdctl put {key} '{adopted}')",
            identity.mesh, identity.etcd
        ));
    }
    Ok(Some(Found { mesh: identity.mesh, generation: 0, rev: rev(header.revision()) }))
}
