//! What managers agree on: who is dead for all.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeSet;

use mesh_core::change::{self, Fresh, outage, verdicts};
use mesh_core::kv::{Op, Rev, Txn};
use mesh_core::model::{Identity, Live, NodeId, Role};
use mesh_core::records;
use proptest::prelude::*;
use sim::Sim;

const FRESH: Fresh = Fresh { id: [7; 16], now: 1_000 };

fn name(place: usize) -> String {
    format!("n{}", place + 1)
}

/// So many nodes, of which the first ones are managers.
fn mesh(nodes: usize, managers: usize) -> (Sim, Vec<NodeId>) {
    let mut sim = Sim::new();
    let join = |place: usize| sim.join(&name(place), &format!("192.0.2.{}", place + 1)).unwrap();
    let ids: Vec<_> = (0..nodes).map(join).collect();
    for id in &ids[..managers] {
        let identity = Identity { role: Role::Manager, certificates: Vec::new(), token: String::new() };
        put(&mut sim, records::identity(id), records::to_json(&identity));
    }
    (sim, ids)
}

fn put(sim: &mut Sim, key: String, value: String) {
    let op = Op::Put { key, value, lease: None };
    assert!(sim.commit(&Txn { compares: Vec::new(), ops: vec![op] }));
}

/// A sign of life that says whom the node does not hear.
fn alive(sim: &mut Sim, id: &NodeId, silent: &[&NodeId]) {
    says(sim, id, silent, &[]);
}

/// One that says, too, whom it hears that is marked.
fn says(sim: &mut Sim, id: &NodeId, silent: &[&NodeId], heard: &[&NodeId]) {
    let all = |ids: &[&NodeId]| ids.iter().map(|id| (*id).clone()).collect();
    let (silent, heard) = (all(silent), all(heard));
    let live = Live { epoch: 1, applied: Rev(1), silent, heard, ..Live::default() };
    put(sim, records::live(id), records::to_json(&live));
}

fn gone(sim: &mut Sim, id: &NodeId) {
    let op = Op::Delete(records::live(id));
    assert!(sim.commit(&Txn { compares: Vec::new(), ops: vec![op] }));
}

fn decide(sim: &mut Sim) -> Vec<NodeId> {
    let txn = verdicts(sim.world(), FRESH);
    if !txn.ops.is_empty() {
        assert!(sim.commit(&txn), "its conditions hold in the world that it is of");
    }
    sim.world().down_nodes().cloned().collect()
}

#[test]
fn most_managers_and_no_sign_of_life_make_a_node_dead_until_it_is_back() {
    let (mut sim, ids) = mesh(4, 3);
    let dead = &ids[3];
    alive(&mut sim, &ids[0], &[dead]);
    alive(&mut sim, &ids[1], &[]);
    alive(&mut sim, &ids[2], &[]);
    assert!(decide(&mut sim).is_empty(), "one of three is not most");
    alive(&mut sim, &ids[1], &[dead]);
    alive(&mut sim, dead, &[]);
    assert!(decide(&mut sim).is_empty(), "it shows life");
    gone(&mut sim, dead);
    assert_eq!(decide(&mut sim), std::slice::from_ref(dead));
    let down = sim.world().downs[dead].clone();
    assert_eq!(
        (down.epoch, down.by, down.since),
        (1, BTreeSet::from([ids[0].clone(), ids[1].clone()]), 1_000)
    );
    // Managers that go away take back nothing.
    gone(&mut sim, &ids[1]);
    gone(&mut sim, &ids[2]);
    assert_eq!(decide(&mut sim), std::slice::from_ref(dead));
    says(&mut sim, &ids[0], &[], &[dead]);
    assert_eq!(decide(&mut sim), std::slice::from_ref(dead), "one of three hears it");
    says(&mut sim, &ids[2], &[], &[dead]);
    assert!(decide(&mut sim).is_empty());
    assert!(sim.world().downs.is_empty());
}

/// Their agents were started anew, and have not heard it yet, nor waited long enough to say that they do not.
#[test]
fn managers_that_do_not_know_yet_take_no_mark_away() {
    for managers in [0, 1, 3] {
        let (mut sim, ids) = mesh(4, managers);
        let dead = &ids[3];
        ids[..3].iter().for_each(|id| alive(&mut sim, id, &[dead]));
        assert_eq!(decide(&mut sim), std::slice::from_ref(dead));
        ids[..3].iter().for_each(|id| alive(&mut sim, id, &[]));
        assert_eq!(decide(&mut sim), std::slice::from_ref(dead), "{managers} managers have no opinion");
        ids[..3].iter().for_each(|id| says(&mut sim, id, &[], &[dead]));
        assert!(decide(&mut sim).is_empty(), "{managers} managers hear it");
    }
}

#[test]
fn a_later_start_and_a_removal_take_the_mark_away() {
    let (mut sim, ids) = mesh(4, 1);
    let dead = &ids[3];
    alive(&mut sim, &ids[0], &[dead]);
    assert_eq!(decide(&mut sim), std::slice::from_ref(dead));
    sim.join(&name(3), "192.0.2.4").unwrap();
    assert_eq!(sim.world().downs.len(), 1);
    assert!(sim.world().down_nodes().next().is_none(), "what was said of the former start does not count");
    assert!(decide(&mut sim).is_empty());
    assert!(sim.world().downs.is_empty());
    assert_eq!(decide(&mut sim), std::slice::from_ref(dead));
    sim.change(|world, _| change::remove_node(world, &name(3), false)).unwrap();
    assert!(sim.world().downs.is_empty());
}

#[test]
fn when_too_many_seem_dead_nobody_is_marked() {
    let (mut sim, ids) = mesh(6, 1);
    alive(&mut sim, &ids[0], &[&ids[3], &ids[4], &ids[5]]);
    assert!(decide(&mut sim).is_empty());
    assert!(outage(sim.world()).too_many);
    alive(&mut sim, &ids[0], &[&ids[4], &ids[5]]);
    assert_eq!(decide(&mut sim).len(), 2);
}

#[test]
fn where_no_node_is_a_manager_all_that_show_life_count_and_who_left_is_not_dead() {
    let (mut sim, ids) = mesh(3, 0);
    alive(&mut sim, &ids[0], &[&ids[2]]);
    alive(&mut sim, &ids[1], &[]);
    assert!(decide(&mut sim).is_empty());
    alive(&mut sim, &ids[1], &[&ids[2]]);
    assert_eq!(decide(&mut sim), [ids[2].clone()]);
    alive(&mut sim, &ids[2], &[]);
    assert!(decide(&mut sim).is_empty(), "it shows life");
    gone(&mut sim, &ids[2]);
    sim.change(|world, _| change::depart(world, &ids[2])).unwrap();
    assert!(decide(&mut sim).is_empty());
}

proptest! {
    /// Whatever managers see: never more than a third is marked anew, no node that shows life, and a second look changes nothing.
    #[test]
    fn marks_are_few_and_stable(
        nodes in 2..9usize,
        managers in 0..4usize,
        seen in prop::collection::vec((any::<bool>(), any::<u16>(), any::<u16>()), 9),
    ) {
        let (mut sim, ids) = mesh(nodes, managers.min(nodes));
        for (id, (shows, silent, heard)) in ids.iter().zip(&seen) {
            let of = |bits: u16| -> Vec<_> { ids.iter().zip(0..).filter(|(_, bit)| bits >> bit & 1 == 1).map(|(id, _)| id).collect() };
            if *shows {
                says(&mut sim, id, &of(*silent), &of(heard & !silent));
            }
        }
        let down = decide(&mut sim);
        prop_assert!(down.len() <= (nodes / 3).max(1));
        prop_assert!(down.iter().all(|id| !sim.world().live.contains_key(id)));
        prop_assert!(verdicts(sim.world(), FRESH).ops.is_empty());
    }
}
