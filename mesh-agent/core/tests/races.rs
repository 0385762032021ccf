//! Two decide on the same world: only one of both may happen, and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeSet;

use mesh_core::change::{self, Fresh, NetworkRequest, TaskRequest, add_task, janitor};
use mesh_core::model::{Origin, TaskState};
use mesh_core::{plan, records};
use sim::Sim;

fn fresh(id: u8) -> Fresh {
    let mut bytes = [id; 16];
    bytes[15] = 0xee;
    Fresh { id: bytes, now: 1 }
}

fn standalone(name: &str, pid: u32) -> TaskRequest {
    TaskRequest {
        dns: Vec::new(),
        packets_only: false,
        service: None,
        name: Some(name.to_owned()),
        networks: vec!["app".to_owned()],
        origin: Origin::Process { pid, start: 1, supervised: false },
        weight: 1,
        state: TaskState::Running,
        slot: None,
        program: None,
    }
}

fn mesh() -> Sim {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let request = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, request, fresh)).unwrap();
    sim
}

#[test]
fn two_tasks_at_once_never_get_one_address() {
    let mut sim = mesh();
    let me = sim.me("n1");
    let first = add_task(sim.world(), &me, standalone("a", 1), fresh(101)).unwrap();
    let second = add_task(sim.world(), &me, standalone("b", 2), fresh(102)).unwrap();
    assert!(sim.commit(&first.txn));
    assert!(!sim.commit(&second.txn), "decided on a world that is no longer");
    let again = add_task(sim.world(), &me, standalone("b", 2), fresh(102)).unwrap();
    assert!(sim.commit(&again.txn));
}

#[test]
fn an_agent_that_was_overtaken_writes_nothing() {
    let mut sim = mesh();
    let old = sim.me("n1");
    let change = add_task(sim.world(), &old, standalone("a", 1), fresh(101)).unwrap();
    sim.join("n1", "192.0.2.1").unwrap();
    assert!(!sim.commit(&change.txn));
    let refusal = add_task(sim.world(), &old, standalone("a", 1), fresh(101)).unwrap_err();
    assert!(refusal.to_string().contains("a later agent has taken over"), "{refusal}");
}

#[test]
fn two_services_at_once_never_get_one_name_or_vip() {
    let mut sim = mesh();
    let first = change::create_service(sim.world(), sim::service("web"), fresh(101)).unwrap();
    let same_name = change::create_service(sim.world(), sim::service("web"), fresh(102)).unwrap();
    let same_place = change::create_service(sim.world(), sim::service("api"), fresh(101)).unwrap();
    assert!(sim.commit(&first.txn));
    assert!(!sim.commit(&same_name.txn));
    assert!(!sim.commit(&same_place.txn));
}

#[test]
fn a_network_is_not_removed_under_a_new_service() {
    let mut sim = mesh();
    let attach = change::create_service(sim.world(), sim::service("web"), fresh(101)).unwrap();
    let remove = change::remove_network(sim.world(), "app", fresh(102)).unwrap();
    assert!(sim.commit(&attach.txn));
    assert!(!sim.commit(&remove.txn));
}

/// More tasks than one transaction takes, and a task that was being added meanwhile.
#[test]
fn a_removed_node_leaves_nothing_behind() {
    let mut sim = mesh();
    sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    for _ in 0..180 {
        sim.task("web", "n1").unwrap();
    }
    let me = sim.me("n1");
    let late = add_task(sim.world(), &me, standalone("late", 1), fresh(250)).unwrap();
    sim.change(|world, _| change::remove_node(world, "n1", false)).unwrap();
    assert!(!sim.commit(&late.txn), "nothing is added to a node that is gone");
    for _ in 0..5 {
        let txn = janitor(sim.world(), &BTreeSet::new());
        assert!(sim.commit(&txn));
    }
    assert!(sim.world().tasks.is_empty() && sim.world().blocks.is_empty());
    assert_eq!(sim.store.range("claim/slot/").count(), 0);
    assert!(janitor(sim.world(), &BTreeSet::new()).ops.is_empty());
    sim.change(|world, fresh| change::remove_service(world, "web", fresh)).unwrap();
    sim.change(|world, fresh| change::remove_network(world, "app", fresh)).unwrap();
}

#[test]
fn a_network_that_cannot_be_cut_is_poison_and_no_panic() {
    let mut sim = mesh();
    let network = sim.world().networks.values().next().unwrap().as_ref().clone();
    for subnet in ["10.0.0.0/30", "10.0.0.0/7"] {
        let mut odd = network.clone();
        odd.v4 = subnet.parse().unwrap();
        let mut txn = mesh_core::kv::Txn::default();
        txn.put(records::network(&odd.id), records::to_json(&odd));
        assert!(sim.commit(&txn));
        assert_eq!(sim.world().poison.len(), 1, "{subnet}");
        let node = sim.world().nodes.keys().next().unwrap().clone();
        assert_eq!(plan::desired(sim.world(), &node, 0).problems.len(), 1);
    }
}

/// A node inside a network would cut itself off.
#[test]
fn a_node_does_not_join_from_inside_a_network() {
    let mut sim = mesh();
    let refusal = sim.join("n3", "10.0.0.7").unwrap_err();
    assert!(refusal.to_string().contains("overlaps 10.0.0.0/16 of network app"), "{refusal}");
}
