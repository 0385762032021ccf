//! **Effect.** The thread that probes: sends, listens, and has detectors judge, ten times a second.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::liveness::{Timing, Verdict};
use mesh_core::model::{NodeId, Snapshot};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::way::{ROUTED, Way};
use super::{Masks, inside, peers};

const PERIOD: Duration = Duration::from_millis(Timing::DEFAULT.period);
/// Every so many rounds it looks into the tunnels, too.
const TUNNELS: u64 = Timing::TUNNEL.period / Timing::DEFAULT.period;
/// Of 99: others that are real-time come first.
const PRIORITY: u8 = 10;

/// Probes all others.
pub(super) struct Prober {
    node: NodeId,
    world: watch::Receiver<Arc<Snapshot>>,
    masks: watch::Sender<Masks>,
    underlay: Way,
    tunnels: Way,
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
        let (underlay, tunnels) = (Way::open(own, Timing::DEFAULT)?, Way::open(ROUTED, Timing::TUNNEL)?);
        Ok(Self { node, world, masks, underlay, tunnels, round: 0, began: Instant::now() })
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
        let fds = self.underlay.fds().chain(self.tunnels.fds());
        let mut waiting: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Interrupted: there may be answers all the same.
        let _ = poll(&mut waiting, Some(&wait));
        self.underlay.listen();
        self.tunnels.listen();
    }

    fn tick(&mut self) {
        if self.round == 0 || self.world.has_changed().unwrap_or(false) {
            let world = Arc::clone(&self.world.borrow_and_update());
            self.underlay.set_peers(peers(&world, &self.node));
            self.tunnels.set_peers(inside(&world, &self.node));
        }
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        for (id, verdict) in self.underlay.tick(now) {
            match verdict {
                Verdict::Dead => warn!(node = self.name(&id), "does not answer any more"),
                Verdict::PathDown => warn!(node = self.name(&id), "answers others only"),
                Verdict::Up if self.masks.borrow().contains_key(&id) => {
                    info!(node = self.name(&id), "answers again");
                }
                _ => {}
            }
        }
        if self.round.is_multiple_of(TUNNELS) {
            self.tunnels.expect(&self.underlay);
            for (id, _) in self.tunnels.tick(now).iter().filter(|(_, verdict)| **verdict == Verdict::Dead) {
                warn!(node = self.name(id), "does not answer through the tunnel any more");
            }
        }
        self.round += 1;
        self.tell();
    }

    /// The loop learns of masks that changed.
    fn tell(&self) {
        let tunnels = self.tunnels.masks().keys().map(|id| (id.clone(), Verdict::TunnelDown));
        let mut all: BTreeMap<NodeId, Verdict> = tunnels.collect();
        all.extend(self.underlay.masks().clone());
        self.masks.send_if_modified(|masks| {
            let changed = **masks != all;
            if changed {
                *masks = Arc::new(all);
            }
            changed
        });
    }

    fn name(&self, id: &NodeId) -> String {
        let world = self.world.borrow();
        world.nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.to_string())
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
