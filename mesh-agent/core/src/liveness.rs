//! **Decision.** Which other nodes answer, from where this one stands. Pure: the time is handed in.
//!
//! Every node probes every other and is answered by the other's kernel, so neither a busy nor a dead agent is taken for
//! a dead node. A verdict only masks: flows that begin go elsewhere while it lasts, and nothing is deleted. That is
//! what makes it safe to be quick. A node that was never heard is not judged, because
//! something may forbid probes, unless it is known to be there ([`Expected`]).
//!
//! Others are asked about whoever falls silent. If they hear it, it is the path that is down, and not the node.
//!
//! A node that leaves on purpose says so, and nobody waits until it is silent ([`Hints`]); of its tasks it says at once what
//! their records will say ([`Notices`]). What managers agree on is in `change::verdicts`.

mod echoes;
mod expected;
mod hints;
mod masks;
mod notices;
mod peer;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::NodeId;
use peer::Peer;

pub use echoes::{AGENT_LATE, Echo, Echoes, boot_number};
pub use expected::Expected;
pub use hints::{Announcer, HINT_LIFE, Hints};
pub use masks::{Masks, heard, masks};
pub use notices::{Bulletin, Notice, Notices};

/// Milliseconds of a clock that never goes back.
pub type Millis = u64;

/// When what is concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two probes of a node, ms.
    pub period: Millis,
    /// A window that ends so much later than it should says nothing of who was not heard in it, ms.
    pub late: Millis,
    /// So many windows in a row without an answer: suspect.
    pub suspect: u32,
    /// Dead, if nobody else hears it either.
    pub dead: u32,
    /// The path is down, if others hear it.
    pub path_down: u32,
    /// So many windows in a row with an answer: it is back.
    pub back: u32,
}

impl Timing {
    /// A dead node is found after eight to nine periods, so that it is masked within 0.9 s, with what it takes to write
    /// that to the kernel. Where a twentieth of the packets is lost each way, eight probes in a row go unanswered once in
    /// four months, and then others are asked.
    pub const DEFAULT: Self = Self { period: 90, late: 200, suspect: 4, dead: 8, path_down: 16, back: 3 };
    /// Of what goes through tunnels, which may be slower to come up, and whose failure is rarer: found in 3.6 s.
    pub const TUNNEL: Self = Self { period: 450, late: 200, suspect: 4, dead: 7, path_down: 14, back: 3 };
}

/// What a node thinks of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It has never answered.
    Unheard,
    /// It answers.
    Up,
    /// It has not for a while.
    Suspect,
    /// It answers, but not through the tunnel.
    TunnelDown,
    /// It answers others only.
    PathDown,
    /// It answers nobody.
    Dead,
    /// Managers agree that it is dead, and we have not heard it either.
    AgreedDown,
    /// It says itself that it leaves, or that it is drained.
    Leaving,
    /// It was started anew, and what its record says is of before.
    Rebooted,
}

/// What is to be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A probe.
    Probe(NodeId),
    /// A question to a node: does it hear another?
    Ask {
        /// Who is asked.
        via: NodeId,
        /// About whom.
        about: NodeId,
    },
}

/// How many are asked about a node that fell silent.
const ASKED: usize = 3;
/// If so many fall silent within [`AT_ONCE`], or half of all if that is more, this node is what is cut off.
const MANY: usize = 3;
/// In milliseconds.
const AT_ONCE: Millis = 2000;
/// So many questions leave at most with a tick, however many fall silent.
const QUESTIONS: usize = 30;

/// Watches all other nodes.
#[derive(Debug)]
pub struct Detector {
    timing: Timing,
    peers: BTreeMap<NodeId, Peer>,
    ticked: Option<Millis>,
    ticks: usize,
    /// Since when this node seems to be cut off from the others.
    alone: bool,
    masks: BTreeMap<NodeId, Verdict>,
    /// Whom the agent before did not hear, as long as they are not there.
    remembered: BTreeSet<NodeId>,
}

impl Detector {
    /// Of nobody yet.
    pub fn new(timing: Timing) -> Self {
        let (peers, masks, remembered) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { timing, peers, ticked: None, ticks: 0, alone: false, masks, remembered }
    }

    /// These the agent before did not hear. They are masked from when they are there until they answer.
    pub fn remember(&mut self, silent: BTreeSet<NodeId>) {
        self.remembered = silent;
    }

    /// These are the others.
    pub fn set_peers(&mut self, peers: &BTreeSet<NodeId>) {
        self.peers.retain(|id, _| peers.contains(id));
        self.masks.retain(|id, _| peers.contains(id));
        for id in peers {
            if !self.peers.contains_key(id) && self.remembered.remove(id) {
                self.peers.insert(id.clone(), Peer::silent(&self.timing));
                self.masks.insert(id.clone(), Verdict::Dead);
            }
            self.peers.entry(id.clone()).or_default();
        }
    }

    /// One has answered.
    pub fn heard(&mut self, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.heard = true;
        }
    }

    /// It is known by other means that one is there: from now on it is judged even if it was never heard.
    pub fn expect(&mut self, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.expected = true;
        }
    }

    /// It lives, and nobody hears it: it is not judged before it was heard.
    pub fn excuse(&mut self, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.ever) {
            let probed = peer.probed;
            *peer = Peer::default();
            peer.probed = probed;
            self.masks.remove(id);
        }
    }

    /// Whether anybody is up, or has answered in this window.
    pub fn hears_anybody(&self) -> bool {
        self.peers.values().any(|peer| peer.heard || peer.verdict == Verdict::Up)
    }

    /// Whether one has ever answered.
    pub fn was_heard(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| peer.ever)
    }

    /// One that answered on this way was dead on another: it may have been started anew, and has to answer here anew,
    /// too, before it gets anything. Its kernel answers long before its agent has made it what it was.
    pub fn doubt(&mut self, id: &NodeId, now: Millis) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.doubt(now, &self.timing);
        }
    }

    /// Another says that it hears one.
    pub fn vouched(&mut self, id: &NodeId, now: Millis) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.vouched = Some(now);
        }
    }

    /// Whether one has answered just now, so that others may be told that it is heard.
    pub fn hears(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(Peer::is_heard)
    }

    /// A window ends and the next begins. All answers that came in have to be told before.
    pub fn tick(&mut self, now: Millis) -> Vec<Action> {
        let late = self.ticked.is_none_or(|last| now > last + self.timing.period + self.timing.late);
        self.ticked = Some(now);
        self.ticks += 1;
        for peer in self.peers.values_mut() {
            peer.judge(late, now, &self.timing);
        }
        self.mask(now);
        self.actions()
    }

    /// What it thinks of one; none: it does not know it.
    pub fn verdict(&self, id: &NodeId) -> Option<Verdict> {
        self.peers.get(id).map(|peer| peer.verdict)
    }

    /// Whose tasks are to get no new flows, as long as there are others; why: [`Verdict::Dead`] or
    /// [`Verdict::PathDown`].
    pub fn masks(&self) -> &BTreeMap<NodeId, Verdict> {
        &self.masks
    }

    /// Whether so many fell silent at once that it must be this node that is cut off. Then it masks nobody further.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    fn mask(&mut self, now: Millis) {
        let heard = self.peers.values().filter(|peer| peer.verdict != Verdict::Unheard || peer.ever).count();
        let many = MANY.max(heard / 2);
        let dead = || self.peers.values().filter(|peer| peer.verdict == Verdict::Dead);
        let at_once = dead().filter(|peer| !peer.lasts(AT_ONCE, now)).count();
        self.alone = at_once > many || self.alone && dead().count() > many;
        for (id, peer) in &self.peers {
            match peer.verdict {
                Verdict::Up => _ = self.masks.remove(id),
                down @ (Verdict::Dead | Verdict::PathDown) if !self.alone || self.masks.contains_key(id) => {
                    self.masks.insert(id.clone(), down);
                }
                _ => {}
            }
        }
        if at_once > many {
            // Those that were masked moments ago are part of it.
            let lasting = |id: &NodeId| self.peers.get(id).is_some_and(|peer| peer.lasts(AT_ONCE, now));
            self.masks.retain(|id, _| lasting(id));
        }
    }

    fn actions(&mut self) -> Vec<Action> {
        self.peers.values_mut().for_each(|peer| peer.probed = true);
        let mut actions: Vec<Action> = self.peers.keys().cloned().map(Action::Probe).collect();
        let up: Vec<&NodeId> =
            self.peers.iter().filter(|(_, peer)| peer.verdict == Verdict::Up).map(|(id, _)| id).collect();
        let silent: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_asked_about(&self.timing))
            .map(|(id, _)| id)
            .collect();
        // Others each time.
        let turn = |count: usize, step: usize| self.ticks.wrapping_mul(step) % count.max(1);
        let vias: Vec<_> = up.iter().cycle().skip(turn(up.len(), ASKED)).take(ASKED.min(up.len())).collect();
        let abouts = silent.iter().cycle().skip(turn(silent.len(), QUESTIONS / ASKED)).take(silent.len());
        let asks = abouts.flat_map(|about| {
            vias.iter().map(|via| Action::Ask { via: (**via).clone(), about: (*about).clone() })
        });
        actions.extend(asks.take(QUESTIONS));
        actions
    }
}

#[cfg(test)]
mod tests;
