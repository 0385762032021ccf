//! Nodes that are an agent's control plane and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mesh_agent::agent::live;
use mesh_agent::control::Control;
use mesh_agent::dns::Referrals;
use mesh_agent::facts::sync::{self, Caution, SyncOptions};
use mesh_agent::status::{Status, StoreHealth};
use mesh_agent::store::Store;
use mesh_agent::tasks::Told;
use mesh_core::change::Me;
use mesh_core::kv::{Rev, Txn, TxnOutcome};
use mesh_core::model::{Snapshot, Task};
use mesh_core::records;
use mesh_tests::Etcd;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::report::Start;
use crate::Mesh;

/// How many records go into one transaction.
const AT_ONCE: usize = 400;
/// How many nodes list everything at the same time.
const TOGETHER: usize = 32;
/// How long a node may take to be in step.
const READY: Duration = Duration::from_secs(300);
/// Tasks of a service.
const SCALE: u16 = 10;

/// A node's copy of the world, and how it fares.
pub(super) struct Node {
    pub(super) world: watch::Receiver<Arc<Snapshot>>,
    pub(super) health: watch::Receiver<StoreHealth>,
    /// What it is told of itself.
    _senders: (watch::Sender<Option<Me>>, watch::Sender<Told>),
    /// Ends it with this.
    _stop: tokio_util::sync::DropGuard,
}

impl Node {
    /// Waits until the node has a revision; returns when it had.
    pub(super) async fn has(&self, rev: Rev) -> Result<Instant> {
        let mut world = self.world.clone();
        let reached = tokio::time::timeout(READY, world.wait_for(|world| world.rev >= rev));
        reached.await.with_context(|| format!("a node is not at revision {rev}"))??;
        Ok(Instant::now())
    }
}

/// Writes a mesh's records.
pub(super) async fn fill(etcd: &Etcd, nodes: u16, tasks: u16) -> Result<Mesh> {
    let world = Mesh::of(nodes, tasks / SCALE, SCALE)?;
    let store = super::store(etcd)?;
    let all: Vec<_> = world.records().collect();
    for some in all.chunks(AT_ONCE) {
        let mut txn = Txn::default();
        some.iter().for_each(|kv| txn.put(&*kv.key, &*kv.value));
        commit(&store, txn).await?;
    }
    Ok(world)
}

/// Starts the nodes and waits until all are in step.
pub(super) async fn start(etcd: &Etcd, mesh: Mesh) -> Result<(Vec<Node>, Start)> {
    let world = mesh.world();
    let ids: Vec<Me> = world.nodes.values().map(|n| Me { id: n.id.clone(), epoch: n.epoch }).collect();
    let records = mesh.records().count();
    let tasks = world.tasks.len();
    drop(mesh);
    let (room, began) = (Arc::new(Semaphore::new(TOGETHER)), Instant::now());
    let before = memory()?;
    let starting: Vec<_> = ids
        .into_iter()
        .map(|me| {
            let (room, store) = (Arc::clone(&room), super::store(etcd));
            TaskTracker::new().spawn(async move {
                let _place = room.acquire_owned().await?;
                let node = begin(store?, me);
                let mut world = node.world.clone();
                let whole = world.wait_for(|world| world.tasks.len() == tasks);
                tokio::time::timeout(READY, whole).await.context("a node does not get all tasks")??;
                anyhow::Ok(node)
            })
        })
        .collect();
    let mut nodes = Vec::new();
    for node in starting {
        nodes.push(node.await??);
    }
    let took = began.elapsed();
    let count = nodes.len().max(1);
    let memory_mib_per_node = (memory()? - before) / count as f64;
    Ok((nodes, Start { records, seconds: took.as_secs_f64(), memory_mib_per_node }))
}

fn begin(store: impl Store, me: Me) -> Node {
    let store: Arc<dyn Store> = Arc::new(store);
    let stop = CancellationToken::new();
    let (world_tx, world) = watch::channel(Arc::new(Snapshot::default()));
    let (health_tx, health) = watch::channel(StoreHealth::default());
    let (status_tx, status) = watch::channel(Arc::new(Status::default()));
    // A thousand nodes would write their files to one disk.
    let (options, caution) = (SyncOptions::default(), Caution::default());
    let copy = sync::run(Arc::clone(&store), None, options, caution, world_tx, health_tx, stop.clone());
    TaskTracker::new().spawn(copy);
    TaskTracker::new().spawn(reconcile(world.clone(), status_tx));
    let control = Control::new(me.id.clone(), Arc::clone(&store), world.clone(), status);
    // What ends when nobody can send is not to end.
    let ((me_tx, me), (told_tx, told)) = (watch::channel(Some(me)), watch::channel(Told::default()));
    let nobody = Referrals::new(Duration::ZERO);
    TaskTracker::new().spawn(live::run(control, store, me, (told, nobody), false, None, stop.clone()));
    Node { world, health, _senders: (me_tx, told_tx), _stop: stop.drop_guard() }
}

/// A data plane that is at once as it is wanted.
async fn reconcile(mut world: watch::Receiver<Arc<Snapshot>>, status: watch::Sender<Arc<Status>>) {
    while world.changed().await.is_ok() {
        let changed = world.borrow_and_update().changed;
        if status.borrow().applied != changed {
            let now = Status { planned: changed, applied: changed, ..Status::default() };
            status.send_replace(Arc::new(now));
        }
    }
}

/// A transaction that must come through.
pub(super) async fn commit(store: &impl Store, txn: Txn) -> Result<Rev> {
    match store.txn(txn).await? {
        TxnOutcome::Committed { rev } => Ok(rev),
        other => bail!("not committed: {other:?}"),
    }
}

/// Writes a task's record.
pub(super) fn put(task: &Task) -> Txn {
    let mut txn = Txn::default();
    txn.put(records::task(&task.id), records::to_json(task));
    txn
}

/// What this process has in memory, MiB.
fn memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
