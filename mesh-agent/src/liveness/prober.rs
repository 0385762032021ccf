//! **Effect.** The thread that probes: sends, listens, and has the detector judge, ten times a second.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::liveness::{Action, Detector, Timing, Verdict};
use mesh_core::model::{NodeId, Snapshot};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::echo::Echo;
use super::{Masks, peers};

const PERIOD: Duration = Duration::from_millis(Timing::DEFAULT.period);
/// Answers to older rounds say nothing of now.
const ROUNDS: u64 = 8;
/// Of 99: others that are real-time come first.
const PRIORITY: u8 = 10;

/// Probes all others.
pub(super) struct Prober {
    node: NodeId,
    world: watch::Receiver<Arc<Snapshot>>,
    masks: watch::Sender<Masks>,
    sockets: [Option<Echo>; 2],
    detector: Detector,
    peers: BTreeMap<NodeId, IpAddr>,
    by_address: BTreeMap<IpAddr, NodeId>,
    round: u64,
    began: Instant,
}

impl Prober {
    /// From a node's own address.
    pub(super) fn open(
        node: NodeId,
        own: IpAddr,
        world: watch::Receiver<Arc<Snapshot>>,
        masks: watch::Sender<Masks>,
    ) -> io::Result<Self> {
        let secret = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        // The other family may be switched off; the own one may not.
        let open = |v6| match Echo::open(own, v6, secret) {
            Err(error) if own.is_ipv6() == v6 => Err(error),
            other => Ok(other.ok()),
        };
        Ok(Self {
            node,
            world,
            masks,
            sockets: [open(false)?, open(true)?],
            detector: Detector::new(Timing::DEFAULT),
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            round: 0,
            began: Instant::now(),
        })
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self, stop: &CancellationToken) {
        hurry();
        let mut next = Instant::now();
        while !stop.is_cancelled() {
            self.listen(next);
            let now = Instant::now();
            if now >= next {
                self.tick();
                // After a pause it goes on from here, and makes up for nothing.
                next = (next + PERIOD).max(now);
            }
        }
    }

    /// Waits for answers until then, and takes all that there are.
    fn listen(&mut self, until: Instant) {
        let wait = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        let sockets = self.sockets.iter().flatten();
        let mut waiting: Vec<_> =
            sockets.map(|socket| PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN)).collect();
        // Interrupted: there may be answers all the same.
        let _ = poll(&mut waiting, Some(&wait));
        for (from, round) in
            self.sockets.iter().flatten().flat_map(|socket| std::iter::from_fn(|| socket.receive()))
        {
            if let Some(id) = self.by_address.get(&from).filter(|_| round + ROUNDS > self.round) {
                self.detector.heard(id);
            }
        }
    }

    fn tick(&mut self) {
        self.learn();
        self.round += 1;
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let before = self.verdicts();
        for action in self.detector.tick(now) {
            match action {
                Action::Probe(id) => self.probe(&id),
                Action::Ask { via, about } => debug!(%via, %about, "nobody can be asked yet"),
            }
        }
        self.tell(&before);
    }

    /// Who the others are now.
    fn learn(&mut self) {
        if !self.world.has_changed().unwrap_or(false) && self.round > 0 {
            return;
        }
        let world = Arc::clone(&self.world.borrow_and_update());
        let peers = peers(&world, &self.node);
        if peers != self.peers {
            self.detector.set_peers(&peers.keys().cloned().collect());
            self.by_address = peers.iter().map(|(id, address)| (*address, id.clone())).collect();
            self.peers = peers;
        }
    }

    fn probe(&self, id: &NodeId) {
        let Some(address) = self.peers.get(id) else { return };
        if let Some(socket) = &self.sockets[usize::from(address.is_ipv6())] {
            socket.send(*address, self.round);
        }
    }

    fn verdicts(&self) -> BTreeMap<NodeId, Option<Verdict>> {
        self.peers.keys().map(|id| (id.clone(), self.detector.verdict(id))).collect()
    }

    /// One line per verdict, and the loop learns of masks that changed.
    fn tell(&self, before: &BTreeMap<NodeId, Option<Verdict>>) {
        let name = |id: &NodeId| {
            self.world.borrow().nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.to_string())
        };
        for (id, verdict) in
            self.verdicts().into_iter().filter(|(id, verdict)| before.get(id) != Some(verdict))
        {
            match verdict {
                Some(Verdict::Dead) => warn!(node = name(&id), "does not answer any more"),
                Some(Verdict::PathDown) => warn!(node = name(&id), "answers others only"),
                Some(Verdict::Up) if self.masks.borrow().contains_key(&id) => {
                    info!(node = name(&id), "answers again")
                }
                _ => {}
            }
        }
        self.masks.send_if_modified(|masks| {
            let changed = **masks != *self.detector.masks();
            if changed {
                *masks = Arc::new(self.detector.masks().clone());
            }
            changed
        });
    }
}

/// Has this thread run before whatever is not real-time.
fn hurry() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    let done = priority.map_err(|why| why.to_string()).and_then(|priority| {
        let set = set_thread_priority_and_policy(thread_native_id(), priority, policy);
        set.map_err(|error| format!("{error:?}"))
    });
    if let Err(why) = done {
        warn!(why, "probes are sent at the common priority: on a busy node they may be late");
    }
}
