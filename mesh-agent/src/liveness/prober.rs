//! **Effect.** The thread that probes: sends, listens, and has detectors judge, some ten times a second.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::kv::Rev;
use mesh_core::liveness::{self, Announcer, Bulletin, Expected, Hints, Millis, Notices, Timing, Verdict};
use mesh_core::message::Word;
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

use super::inbox::Inbox;
use super::way::{ROUTED, Ticked, Way};
use super::{Heard, Masks, Voice, inside, peers};

const PERIOD: Duration = Duration::from_millis(Timing::DEFAULT.period);
/// Every so many rounds it looks into the tunnels, too.
const TUNNELS: u64 = Timing::TUNNEL.period / Timing::DEFAULT.period;
/// Every so many rounds it tells what nodes say with their answers.
const TOLD: u64 = 5;
/// So many messages are read in a round, whoever sends more.
const MESSAGES: u32 = 1000;
/// Of 99: others that are real-time come first.
const PRIORITY: u8 = 10;

/// Probes all others.
pub(super) struct Prober {
    node: NodeId,
    world: watch::Receiver<Arc<Snapshot>>,
    masks: watch::Sender<Masks>,
    underlay: Way,
    tunnels: Way,
    expected: Expected,
    voice: Voice,
    heard: Heard,
    inbox: Inbox,
    hints: Hints,
    notices: Notices,
    announcer: Announcer,
    bulletin: Bulletin,
    /// Whether the records have this node get no new flows.
    leaves: bool,
    /// How many messages may still be read in this round.
    room: u32,
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
        voice: Voice,
        heard: Heard,
    ) -> io::Result<Self> {
        let (underlay, tunnels) = (Way::open(own, Timing::DEFAULT)?, Way::open(ROUTED, Timing::TUNNEL)?);
        let (room, round, began) = (MESSAGES, 0, Instant::now());
        Ok(Self {
            expected: Expected::new(node.clone()),
            node,
            world,
            masks,
            underlay,
            tunnels,
            voice,
            heard,
            inbox: Inbox::default(),
            hints: Hints::default(),
            notices: Notices::default(),
            announcer: Announcer::default(),
            bulletin: Bulletin::default(),
            leaves: false,
            room,
            round,
            began,
        })
    }

    /// From what the agent before knew.
    pub(super) fn remembering(mut self, silent: BTreeSet<NodeId>) -> Self {
        self.underlay.remember(silent);
        self
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
        let messages = self.voice.messenger.iter().filter(|_| self.room > 0).map(|messenger| messenger.fd());
        let fds = self.underlay.fds().chain(self.tunnels.fds()).chain(messages).chain([self.voice.bell.fd()]);
        let mut waiting: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        // Interrupted: there may be answers all the same.
        let _ = poll(&mut waiting, Some(&wait));
        let now = self.now();
        self.underlay.listen(now);
        self.tunnels.listen(now);
        self.hear();
        if self.voice.bell.was_rung() {
            self.announce();
            self.tell();
        }
    }

    /// Reads messages. What a node says of itself counts at once.
    fn hear(&mut self) {
        let Some(messenger) = self.voice.messenger.clone() else { return };
        let now = self.now();
        let mut told = false;
        while self.room > 0
            && let Some((from, datagram)) = messenger.receive()
        {
            self.room -= 1;
            let Some((id, word)) = self.inbox.read(from, &datagram, now) else { continue };
            match word {
                Word::Ask(about) if self.underlay.hears(about) => messenger.tell(from, Word::Heard(about)),
                Word::Ask(_) => {}
                Word::Heard(about) => self.underlay.vouched(about, now),
                Word::Leaving | Word::Staying => {
                    self.hints.told(&id, word == Word::Leaving, now);
                    told = true;
                }
                Word::Task(notice, about) => {
                    self.notices.told(&self.world.borrow(), &id, notice, about, now);
                    told = true;
                }
            }
        }
        if told {
            self.tell();
        }
    }

    /// Says what this node wants of others, or wants to know of them.
    fn speak(&mut self, asks: Vec<(IpAddr, IpAddr)>) {
        let Some(messenger) = &self.voice.messenger else { return };
        for (via, about) in asks {
            messenger.tell(via, Word::Ask(about));
        }
        let leaving = messenger.is_leaving() || self.leaves;
        if let Some(leaving) = self.announcer.tick(leaving) {
            messenger.tell_all(if leaving { Word::Leaving } else { Word::Staying });
        }
    }

    /// Says what there is to say of this node's tasks.
    fn announce(&mut self) {
        let world = Arc::clone(&self.world.borrow());
        let words = self.bulletin.tick(&world, &self.voice.bell.known(&world));
        if let Some(messenger) = &self.voice.messenger {
            words.into_iter().for_each(|word| messenger.tell_all(word));
        }
    }

    fn now(&self) -> Millis {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn tick(&mut self) {
        // Nothing is known of anybody yet: what the agent before knew stands.
        if self.round == 0 && self.world.borrow().rev == Rev(0) {
            return;
        }
        if self.round == 0 || self.world.has_changed().unwrap_or(false) {
            let world = Arc::clone(&self.world.borrow_and_update());
            self.underlay.set_peers(peers(&world, &self.node));
            self.tunnels.set_peers(inside(&world, &self.node));
            let reflect = world.nodes.values().filter(|node| node.reflects);
            self.underlay.set_reflecting(reflect.map(|node| node.id.clone()).collect());
            self.inbox.set_senders(&world, &self.node);
            self.leaves = world.is_withdrawn(&self.node) && !world.hands_over(&self.node);
        }
        let now = self.now();
        self.underlay.expect_those(&mut self.expected, &self.world.borrow(), now);
        let Ticked { changed, asks } = self.underlay.tick(now);
        for (id, verdict) in changed {
            match verdict {
                Verdict::Dead => {
                    warn!(node = self.name(&id), "does not answer");
                    self.tunnels.doubt(&id, &self.underlay, now);
                }
                Verdict::PathDown => warn!(node = self.name(&id), "answers others only"),
                Verdict::Up if self.masks.borrow().nodes.contains_key(&id) => {
                    info!(node = self.name(&id), "answers again");
                }
                _ => {}
            }
        }
        if self.round.is_multiple_of(TUNNELS) {
            self.tunnels.expect(&self.underlay);
            for (id, _) in
                self.tunnels.tick(now).changed.iter().filter(|(_, verdict)| **verdict == Verdict::Dead)
            {
                warn!(node = self.name(id), "does not answer through the tunnel any more");
            }
        }
        self.speak(asks);
        self.announce();
        if self.round.is_multiple_of(TOLD) {
            let fresh = self.underlay.echoes().fresh(now);
            self.heard.store(Arc::new(fresh.map(|(id, echo)| (id.clone(), *echo)).collect()));
        }
        (self.round, self.room) = (self.round + 1, MESSAGES);
        let world = self.world.borrow();
        self.hints.expire(now, |id| world.nodes.contains_key(id));
        self.notices.expire(&world, now);
        drop(world);
        self.tell();
    }

    /// The loop learns of masks that changed.
    fn tell(&self) {
        if self.round == 0 {
            return;
        }
        let world = Arc::clone(&self.world.borrow());
        let (underlay, tunnels) = (self.underlay.detector(), self.tunnels.detector());
        let (echoes, now) = (self.underlay.echoes(), self.now());
        let nodes = liveness::masks(&world, underlay, tunnels, &self.hints, echoes, now);
        let tasks = self.notices.in_force(&world, &self.voice.bell.known(&world));
        let all = liveness::Masks { nodes, tasks, heard: liveness::heard(&world, underlay) };
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
