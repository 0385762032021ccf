//! Whom an agent must hear that has just started.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::change;
use mesh_core::kv::{Op, Txn};
use mesh_core::liveness::{Detector, Expected, Millis, Timing, Verdict};
use mesh_core::model::{Live, NodeId};
use mesh_core::records;
use proptest::prelude::*;
use sim::Sim;

const PERIOD: Millis = Timing::DEFAULT.period;

/// A mesh and an agent of its first node, that has just begun.
struct Start {
    sim: Sim,
    ids: Vec<NodeId>,
    expected: Expected,
    detector: Detector,
    now: Millis,
}

impl Start {
    /// So many nodes. All show life, unless a test takes it away.
    fn of(nodes: usize) -> Self {
        let mut sim = Sim::new();
        let join = |place: usize| sim.join(&format!("n{place}"), &format!("192.0.2.{}", place + 1)).unwrap();
        let ids: Vec<_> = (0..nodes).map(join).collect();
        let (expected, detector) = (Expected::new(ids[0].clone()), Detector::new(Timing::DEFAULT));
        let mut start = Self { sim, ids, expected, detector, now: 500 };
        (0..nodes).for_each(|place| start.shows_life(place));
        start
    }

    fn shows_life(&mut self, place: usize) {
        let live = Live { epoch: 1, applied: self.sim.world().rev, ..Live::default() };
        let key = records::live(&self.ids[place]);
        self.commit(Op::Put { key, value: records::to_json(&live), lease: None });
    }

    fn shows_none(&mut self, place: usize) {
        let key = records::live(&self.ids[place]);
        self.commit(Op::Delete(key));
    }

    fn commit(&mut self, op: Op) {
        assert!(self.sim.commit(&Txn { compares: Vec::new(), ops: vec![op] }));
    }

    /// Time passes, in which those answer.
    fn run(&mut self, time: Millis, answers: impl Fn(usize) -> bool) {
        for _ in 0..time / PERIOD {
            let world = self.sim.world();
            let others = world.nodes.keys().filter(|id| **id != self.ids[0]).cloned().collect();
            self.detector.set_peers(&others);
            for (_, id) in self.ids.iter().enumerate().skip(1).filter(|(place, _)| answers(*place)) {
                self.detector.heard(id);
            }
            self.expected.tick(world, &mut self.detector, self.now);
            self.detector.tick(self.now);
            self.now += PERIOD;
        }
    }

    fn masked(&self) -> Vec<usize> {
        let place = |id: &NodeId| self.ids.iter().position(|other| other == id).unwrap();
        self.detector.masks().keys().map(place).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// An agent that ends and starts takes no dead node back.
#[test]
fn who_was_there_and_does_not_answer_is_masked_as_soon_as_ever() {
    let mut start = Start::of(3);
    start.run(720, |place| place == 1);
    assert!(start.masked().is_empty());
    start.run(90, |place| place == 1);
    assert_eq!(start.masked(), [2]);
    assert_eq!(start.detector.verdict(&start.ids[2]), Some(Verdict::Dead));
    start.run(60_000, |place| place == 1);
    assert_eq!(start.masked(), [2], "its sign of life is older than this agent");
    start.run(360, |_| true);
    assert!(start.masked().is_empty());
}

/// Nodes whose agents come up one after the other: each is heard from when its machine is there.
#[test]
fn a_mesh_that_starts_masks_whoever_is_not_there_yet_and_nobody_who_is() {
    let mut start = Start::of(6);
    start.run(30_000, |_| false);
    assert!(start.masked().is_empty(), "nobody is heard: it may be this node that is cut off");
    start.run(270, |place| place == 1);
    assert!(start.masked().is_empty(), "silence counts from when somebody answers");
    for up in 2..6 {
        start.run(1_000, |place| place <= up);
        assert!(start.masked().iter().all(|place| *place > up), "{up}: {:?}", start.masked());
    }
    assert!(start.masked().is_empty());
}

/// What tells a node that is alone from one that is cut off: the store.
#[test]
fn where_nobody_is_heard_the_dead_are_those_that_show_no_life_while_this_node_does() {
    let mut start = Start::of(2);
    start.run(5_000, |_| false);
    assert!(start.masked().is_empty());
    start.shows_none(1);
    start.shows_none(0);
    start.run(5_000, |_| false);
    assert!(start.masked().is_empty(), "nor does this node: it may not know");
    start.shows_life(0);
    start.run(810, |_| false);
    assert_eq!(start.masked(), [1]);
    let mut many = Start::of(9);
    (1..9).for_each(|place| many.shows_none(place));
    many.run(60_000, |_| false);
    assert!(many.masked().is_empty() && many.detector.is_alone());
}

/// Something forbids probes there, and it lives all the same: that is seen after a while, and then for good.
#[test]
fn who_shows_life_since_and_never_answered_is_not_judged() {
    let mut start = Start::of(4);
    start.run(2_000, |place| place != 3);
    assert_eq!(start.masked(), [3]);
    start.shows_life(3);
    start.run(10_000, |place| place != 3);
    assert_eq!(start.masked(), [3], "it may have died just now");
    start.run(15_000, |place| place != 3);
    assert!(start.masked().is_empty());
    start.shows_none(3);
    start.run(5_000, |place| place != 3);
    assert!(start.masked().is_empty(), "it is as if it was never heard");
    // Once it was heard it is judged like any other.
    start.run(1_000, |_| true);
    start.run(1_000, |place| place != 3);
    assert_eq!(start.masked(), [3]);
    start.shows_life(3);
    start.run(60_000, |place| place != 3);
    assert_eq!(start.masked(), [3]);
}

/// Others hear it: it is the path to it that is down, whatever the store says.
#[test]
fn who_others_hear_stays_masked() {
    let mut start = Start::of(4);
    for _ in 0..400 {
        let (id, now) = (start.ids[3].clone(), start.now);
        start.detector.vouched(&id, now);
        start.run(PERIOD, |place| place != 3);
        start.shows_life(3);
    }
    let verdicts: BTreeMap<_, _> = start.detector.masks().clone();
    assert_eq!(verdicts, BTreeMap::from([(start.ids[3].clone(), Verdict::PathDown)]));
}

#[test]
fn who_joins_later_or_has_left_is_judged_once_it_was_heard() {
    let mut start = Start::of(3);
    let left = start.ids[2].clone();
    start.sim.change(|world, _| change::depart(world, &left)).unwrap();
    start.run(1_000, |place| place == 1);
    let late = start.sim.join("late", "192.0.2.99").unwrap();
    start.ids.push(late);
    start.run(60_000, |place| place == 1);
    assert!(start.masked().is_empty());
    start.run(1_000, |_| true);
    start.run(1_000, |place| place == 1);
    assert_eq!(start.masked(), [2, 3]);
}

/// Before the store was asked there is only what was written down, and the rest comes with it.
#[test]
fn those_that_the_store_knows_are_expected_too() {
    let mut start = Start::of(2);
    (0..2).for_each(|place| start.shows_none(place));
    start.run(500, |_| true);
    let more = start.sim.join("more", "192.0.2.99").unwrap();
    start.ids.push(more);
    start.shows_life(0);
    start.run(900, |place| place == 1);
    assert_eq!(start.masked(), [2]);
}

proptest! {
    /// Whoever answers in one of eight windows is never masked, and of those that answer in none all are while at
    /// least half do answer.
    #[test]
    fn only_the_silent_are_masked(nodes in 2..12usize, silent: u16, gaps in prop::collection::vec(1..8usize, 12)) {
        let mut start = Start::of(nodes);
        let is_silent = |place: usize| silent >> place & 1 == 1;
        for window in 0..60 {
            start.run(PERIOD, |place| !is_silent(place) && window % gaps[place] == 0);
            prop_assert!(start.masked().iter().all(|place| is_silent(*place)), "{:?}", start.masked());
        }
        let dead: Vec<_> = (1..nodes).filter(|place| is_silent(*place)).collect();
        if dead.len() <= (nodes - 1) / 2 {
            prop_assert_eq!(start.masked(), dead);
        }
    }
}
