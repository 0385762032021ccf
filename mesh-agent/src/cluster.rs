//! **Effect.** The managed cluster: nodes that keep the records themselves, in an etcd that the mesh runs.
//!
//! `mesh etcd` runs the member of a manager and outlives the agent (`supervise`). What the members are to be stands in
//! the records (`manager/<node>`); each manager sees to it (`duty`), and a node that is to become one does its part
//! (`ascend`). `cluster.json` says at a start what this node is. What an operator asks for is in `begin`, `join`,
//! `leave` and `recover`. When what a node is changes, its agent starts anew in its own process: that stops no traffic.
//! See docs/adr/0030.

mod ascend;
mod begin;
mod binary;
mod dissolve;
mod duty;
mod file;
mod join;
mod leave;
mod own;
mod recover;
mod rotation;
mod snapshots;
mod supervise;
mod trust;
mod trust_rotation;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_core::etcd::GATEWAY_PORT;
use mesh_core::kv::Rev;
use mesh_core::model::{Name, NodeId, Role, Snapshot};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::dissolve::dissolve;
pub use self::file::ClusterFile;
pub use self::own::Own;
pub use self::supervise::{EtcdArgs, main as supervise};
use self::trust::Trust;
use crate::control::Control;
use crate::disk;
use crate::liveness::Messenger;
use crate::pki::Files;
use crate::store::etcd::{EtcdOptions, EtcdStore, Known, MemberHealth};
use crate::store::gate::Gate;
use crate::store::gateway::SeveralGateways;

/// What the keys of a managed cluster begin with.
const PREFIX: &str = "/mesh/";
/// Says that the copy of the records is of a mesh that this node has left.
const FORGET: &str = "cache.forget";

/// Why something was not done, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It makes no sense by itself.
    #[error("{0}")]
    Invalid(String),
    /// Something is in the way.
    #[error("{0}")]
    Conflict(String),
    /// It failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// A member of etcd, as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSeen {
    /// etcd's number for it.
    pub id: u64,
    /// Whose it is; `None`: it has never started.
    pub node: Option<NodeId>,
    /// Where it is.
    pub address: Option<IpAddr>,
    /// It follows and has no vote.
    pub learner: bool,
    /// How it fares; `None`: it does not answer.
    pub health: Option<MemberHealth>,
}

/// The members, as they were last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// By etcd's number.
    pub members: Vec<MemberSeen>,
    /// What is being waited for, if anything.
    pub waits: Option<String>,
}

impl Seen {
    /// etcd's number of the leader.
    pub fn leader(&self) -> Option<u64> {
        let told = self.members.iter().filter_map(|member| Some(member.health.as_ref()?.leader));
        told.filter(|leader| *leader != 0).max()
    }

    /// How many have a vote, and how many of these answer.
    pub fn votes(&self) -> (usize, usize) {
        let voters: Vec<_> = self.members.iter().filter(|member| !member.learner).collect();
        (voters.len(), voters.iter().filter(|member| member.health.is_some()).count())
    }

    /// What members say is wrong, each once.
    pub fn alarms(&self) -> Vec<String> {
        let healths = self.members.iter().filter_map(|member| member.health.as_ref());
        let mut all: Vec<_> = healths.flat_map(|health| health.alarms.iter().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// The way to the records, by what this node is.
pub enum Way {
    /// Neither manager nor worker: as the configuration has it. Its own records can be held still.
    Alone(Option<Arc<Gate>>),
    /// A manager.
    Manager(Arc<EtcdStore>),
    /// A worker.
    Worker(Arc<SeveralGateways>),
}

/// Who this node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// How it is called.
    pub name: Name,
    /// Where other nodes reach it.
    pub address: IpAddr,
    /// Where its state is.
    pub state_dir: PathBuf,
    /// Speaks for it to others, where that works.
    pub messenger: Option<Arc<Messenger>>,
    /// What it does as a manager, and how.
    pub terms: Terms,
}

/// What is configured for managers.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long the certificates are good that it signs for nodes.
    pub certificates: Duration,
    /// The same of those for members of etcd.
    pub member_certificates: Duration,
    /// How much its member may hold, bytes.
    pub quota: u64,
}

struct Inner {
    node: NodeId,
    name: Name,
    address: IpAddr,
    state_dir: PathBuf,
    messenger: Option<Arc<Messenger>>,
    terms: Terms,
    file: Option<ClusterFile>,
    way: Way,
    control: Control,
    seen: watch::Sender<Seen>,
    again: Notify,
    /// Whatever ends the agent now, it starts anew.
    changes: AtomicBool,
    /// One verb at a time.
    busy: tokio::sync::Mutex<()>,
    /// Of which replacement of an authority, by kind, the secrets of former ones were removed.
    forgotten: Mutex<BTreeMap<&'static str, Rev>>,
}

/// What this node is to its cluster, and the way to change that. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

impl Cluster {
    /// Puts the parts together.
    pub fn new(control: Control, identity: Identity, file: Option<ClusterFile>, way: Way) -> Self {
        let Identity { name, address, state_dir, messenger, terms } = identity;
        let inner = Inner {
            node: control.node().clone(),
            name,
            address,
            state_dir,
            messenger,
            terms,
            file,
            way,
            control,
            seen: watch::Sender::new(Seen::default()),
            again: Notify::new(),
            changes: AtomicBool::new(false),
            busy: tokio::sync::Mutex::default(),
            forgotten: Mutex::default(),
        };
        Self(Arc::new(inner))
    }

    /// What this node is; `None`: it belongs to no managed cluster.
    pub fn role(&self) -> Option<Role> {
        self.0.file.as_ref().map(|file| file.role)
    }

    /// The members, as a manager last saw them.
    pub fn seen(&self) -> Seen {
        self.0.seen.borrow().clone()
    }

    /// Does what this node's role asks for until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        match &self.0.way {
            Way::Alone(_) => stop.cancelled().await,
            Way::Manager(etcd) => {
                let etcd = Arc::clone(etcd);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = duty::run(&self, &etcd) => {}
                }
            }
            Way::Worker(gateways) => {
                let gateways = Arc::clone(gateways);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = ascend::run(&self, &gateways) => {}
                }
            }
        }
    }

    /// Waits until the agent is to start anew.
    pub async fn again(&self) {
        self.0.again.notified().await;
    }

    /// Whether this node is to be something else, so that the end of its agent is no end.
    pub fn changes(&self) -> bool {
        self.0.changes.load(Ordering::Relaxed)
    }

    fn start_again(&self) {
        self.0.changes.store(true, Ordering::Relaxed);
        self.0.again.notify_one();
    }

    fn files(&self) -> Files {
        Files::of(&self.0.state_dir)
    }

    fn own(&self) -> Own {
        Own::of(&self.0.state_dir)
    }

    fn trust<'a>(&self, own: &'a Own) -> Trust<'a> {
        Trust { own, life: self.0.terms.member_certificates }
    }

    /// How much this node's member of etcd may hold, bytes.
    pub fn quota(&self) -> u64 {
        self.0.terms.quota
    }

    /// Writes down where the managers are now. False: not yet, for this node is about to be something else, and what is
    /// written down of that is not to be undone.
    fn moved(&self, managers: Vec<SocketAddr>) -> anyhow::Result<bool> {
        let Some(file) = &self.0.file else { return Ok(true) };
        let Ok(_busy) = self.0.busy.try_lock() else { return Ok(false) };
        if self.changes() {
            return Ok(false);
        }
        ClusterFile { managers, ..file.clone() }.save(&self.0.state_dir)?;
        Ok(true)
    }

    /// Begins to be something else: from the next start on, which is soon.
    fn become_one(&self, role: Role, cluster: &str, managers: Vec<SocketAddr>) -> anyhow::Result<()> {
        ClusterFile { cluster: cluster.to_owned(), role, managers }.save(&self.0.state_dir)?;
        self.start_again();
        Ok(())
    }

    /// What was kept of another mesh, or of the same one elsewhere, goes out of the way. The copy of the records goes at
    /// the next start: until then it is written to.
    fn set_aside(&self, cache: bool) -> anyhow::Result<()> {
        let dir = &self.0.state_dir;
        if cache {
            disk::write_bytes(&dir.join(FORGET), b"")?;
        }
        let store = dir.join("store.redb");
        if store.exists() {
            std::fs::rename(&store, dir.join("store.redb.before"))?;
        }
        Ok(())
    }
}

/// At a start: forgets the copy of the records of a mesh that this node has left.
pub fn forget_former(state_dir: &Path) -> anyhow::Result<()> {
    let marker = state_dir.join(FORGET);
    if !marker.exists() {
        return Ok(());
    }
    ["cache", "cache.old", "cache.new", "cache.good", "cache.ripe", crate::liveness::FILE]
        .into_iter()
        .try_for_each(|name| disk::remove(&state_dir.join(name)))?;
    disk::remove(&marker)
}

/// Ends this node's member of etcd, if it has one, and removes all that belongs to a cluster.
pub async fn purge(state_dir: &Path) -> anyhow::Result<()> {
    Own::of(state_dir).remove().await?;
    Files::of(state_dir).remove()?;
    let files = ["cluster.json", FORGET, "store.redb.before"];
    files.into_iter().try_for_each(|name| disk::remove(&state_dir.join(name)))
}

/// The managers' addresses, by the records.
fn managers(world: &Snapshot) -> BTreeMap<NodeId, IpAddr> {
    world.managers().map(|node| (node.id.clone(), node.address)).collect()
}

/// Where a manager's gateway is.
fn gateway(address: IpAddr) -> SocketAddr {
    (address, GATEWAY_PORT).into()
}

/// How a manager gets at the records: its own member first.
pub fn etcd_options(
    state_dir: &Path,
    file: &ClusterFile,
    own: IpAddr,
    known: Known,
) -> anyhow::Result<EtcdOptions> {
    let others = file.managers.iter().map(SocketAddr::ip).filter(|address| *address != own);
    Own::of(state_dir).options(true, &others.collect::<Vec<_>>(), known)
}

/// Sees to it that this node's member runs, if it has one.
pub async fn ensure(state_dir: &Path) -> anyhow::Result<()> {
    Own::of(state_dir).ensure().await
}
