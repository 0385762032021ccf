//! **Decision.** Whom an agent must hear that has just started: whoever was there before it.
//!
//! A node that was never heard is not judged, for something may forbid probes to it. An agent that starts has heard
//! nobody, and among the nodes that it finds some may be dead: it must not wait for them for ever. So those are judged
//! by their silence from the first probe on, in windows in which anybody answers at all. Where nobody does, this node may
//! be what is cut off; then silence counts of those only that show no sign of life to the store while this node does.
//! Whoever shows one that is younger than this agent, still does so when that of a dead node would be gone, and
//! answers no one, is behind something that forbids probes: it is as if nobody had expected it.

use std::collections::BTreeSet;

use super::{Detector, Millis, Verdict};
use crate::kv::Rev;
use crate::model::{NodeId, Snapshot};
use crate::records;

/// After so long a node that died when we began shows no sign of life any more.
const FADED: Millis = 20_000;

/// Who has not been heard since this agent began, and was there.
#[derive(Debug)]
pub struct Expected {
    own: NodeId,
    waiting: BTreeSet<NodeId>,
    /// When anybody was there first.
    began: Option<Millis>,
    /// The revision with which signs of life came in first. Whoever is new after it joins.
    listed: Option<Rev>,
}

impl Expected {
    /// By a node.
    pub fn new(own: NodeId) -> Self {
        Self { own, waiting: BTreeSet::new(), began: None, listed: None }
    }

    /// A window is about to end: whose silence in it counts, though it was never heard?
    pub fn tick(&mut self, world: &Snapshot, detector: &mut Detector, now: Millis) {
        if self.listed.is_none() {
            let there = world.nodes.values().filter(|node| !node.left).map(|node| &node.id);
            self.waiting.extend(there.filter(|id| detector.verdict(id).is_some()).cloned());
            // What was written down has none: they come from the store.
            self.listed = (!world.live.is_empty()).then_some(world.rev);
        }
        if self.waiting.is_empty() {
            return;
        }
        let began = *self.began.get_or_insert(now);
        let (anybody, told) = (detector.hears_anybody(), world.live.contains_key(&self.own));
        self.waiting.retain(|id| {
            if detector.verdict(id).is_none() || detector.was_heard(id) {
                return false;
            }
            let shows_life = world.live.contains_key(id);
            let since = self.listed.is_some_and(|listed| world.rev_of(&records::live(id)) > listed);
            if shows_life && since && now > began + FADED && detector.verdict(id) != Some(Verdict::PathDown) {
                detector.excuse(id);
                return false;
            }
            if anybody || told && !shows_life {
                detector.expect(id);
            }
            true
        });
    }
}
