//! **Effect.** Probes other nodes, and tells the loop which do not answer.
//!
//! What is concluded from answers is in `mesh_core::liveness`. Probes are answered by the other's kernel, whatever its
//! agent does: by our programs there, which say how it fares, or else as ICMP echoes. What nodes ask each other, and tell of themselves, are messages (`messenger`, `inbox`).

mod bell;
mod echo;
mod inbox;
mod memory;
mod messenger;
mod probe;
mod prober;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::change::Me;
use mesh_core::liveness::{Echo, boot_number};
use mesh_core::model::{Node, NodeId, Snapshot, TaskState};
use mesh_core::plan::own_address;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use self::bell::Bell;
pub use self::memory::{FILE, first, remember, remembered};
pub use self::messenger::{Leaving, Messenger};
use self::prober::Prober;
use crate::dataplane::ebpf::Reflector;

/// Nodes that do not answer, and tasks that cannot serve.
pub type Masks = Arc<mesh_core::liveness::Masks>;

/// What nodes' kernels said with their last answers.
pub type Heard = Arc<ArcSwap<BTreeMap<NodeId, Echo>>>;

/// What a node tells others, and by whom.
#[derive(Debug)]
pub struct Voice {
    /// None: nothing can be said.
    pub messenger: Option<Arc<Messenger>>,
    /// What it knows of its tasks.
    pub bell: Bell,
}

/// How often an agent says that it lives.
const SAY: Duration = Duration::from_millis(500);

/// Says to the kernel, for it to answer probes with, that this agent lives: until told to stop.
pub async fn reflect(
    mut reflector: Reflector,
    boot: String,
    me: watch::Receiver<Option<Me>>,
    stop: CancellationToken,
) {
    let mut timer = tokio::time::interval(SAY);
    let mut failed = false;
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        let epoch = me.borrow().as_ref().map_or(0, |me| me.epoch);
        let told = reflector.tell(boot_number(&boot), epoch);
        if let Err(error) = &told
            && !failed
        {
            warn!(error = error.in_full(), "other nodes do not learn that this agent lives");
        }
        failed = told.is_err();
    }
}

/// Up to so many nodes, each probes all others. From there on those with tasks: only to them flows are sent.
const ALL: usize = 256;

/// Runs until told to stop, on a thread of its own: what else the agent does must not be taken for the silence of
/// others. Those that are masked already the agent before did not hear. Where probes cannot be sent, nobody is masked.
pub async fn run(
    node: NodeId,
    address: IpAddr,
    world: watch::Receiver<Arc<Snapshot>>,
    masks: watch::Sender<Masks>,
    voice: Voice,
    heard: Heard,
    stop: CancellationToken,
) {
    let (none, silent) = (masks.clone(), masks.borrow().nodes.keys().cloned().collect());
    let prober = Prober::open(node, address, world, masks, voice, heard);
    let prober = prober.map(|prober| prober.remembering(silent));
    match prober.and_then(|prober| start(prober, stop.clone())) {
        // An error: the thread broke, and its panic was told.
        Ok(ended) => _ = ended.await,
        Err(error) => {
            warn!(%error, "cannot probe other nodes: those that die are not found");
            none.send_replace(Masks::default());
            stop.cancelled().await;
        }
    }
}

fn start(prober: Prober, stop: CancellationToken) -> io::Result<oneshot::Receiver<()>> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name("mesh-prober".to_owned()).spawn(move || {
        prober.run(&stop);
        let _ = done.send(());
    })?;
    Ok(ended)
}

/// Who is probed, and where.
fn peers(world: &Snapshot, node: &NodeId) -> BTreeMap<NodeId, IpAddr> {
    let serves = |id: &NodeId| world.tasks.on(id).iter().any(|task| task.state == TaskState::Running);
    let others = world.nodes.values().filter(|other| other.id != *node);
    let probed = others.filter(|other| world.nodes.len() <= ALL || serves(&other.id));
    probed.map(|other| (other.id.clone(), other.address)).collect()
}

/// The addresses that the same nodes have in a network of the overlay, where they have one.
fn inside(world: &Snapshot, node: &NodeId) -> BTreeMap<NodeId, IpAddr> {
    let others = peers(world, node).into_keys().filter_map(|id| world.nodes.get(&id));
    let inside = |other: &Arc<Node>| {
        let mut networks = world.networks.keys();
        let own = networks.find_map(|network| own_address(world, other, network))?;
        Some((other.id.clone(), own.v4.into()))
    };
    others.filter_map(inside).collect()
}
