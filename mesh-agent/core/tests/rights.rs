//! What a worker may write and what not. That it may make every change that its agent makes, and no other worker's, is
//! proven by the random histories of `properties.rs`, which make them all as workers.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::change::{self, AttachmentRequest, NetworkRequest, NodeFacts, ServiceRequest, TaskRequest};
use mesh_core::kv::{Compare, LeaseId, Op, Rev, Txn};
use mesh_core::model::{Live, Node, NodeId, Origin, Role, Task, TaskState};
use mesh_core::records::{self, Claim};
use mesh_core::rights::{Caller, may_commit, may_read};
use proptest::prelude::*;
use sim::Sim;

/// Two nodes with a task each, of one service, and each one of its own.
fn world() -> Sim {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let request = NetworkRequest { name: "net".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, request, fresh)).unwrap();
    let request = ServiceRequest {
        name: "web".to_owned(),
        networks: vec![AttachmentRequest { network: "net".to_owned(), aliases: Vec::new() }],
        mode: "vip".parse().unwrap(),
        ports: Vec::new(),
        balancing: "random".parse().unwrap(),
        affinity: mesh_core::model::Affinity::None,
        locality: "spread".parse().unwrap(),
        drain_timeout: Duration::ZERO,
        return_path: Default::default(),
        idle_timeout: None,
        discovery: Default::default(),
        slow_start: Duration::ZERO,
        passive_health: true,
        health: Default::default(),
        program: Default::default(),
        labels: BTreeMap::new(),
    };
    sim.change(|world, fresh| change::create_service(world, request, fresh)).unwrap();
    for node in ["n1", "n2"] {
        sim.task("web", node).unwrap();
        own_task(&mut sim, node);
    }
    sim
}

/// A task without a service.
fn own_task(sim: &mut Sim, node: &str) -> Task {
    let me = sim.me(node);
    let request = TaskRequest {
        dns: Vec::new(),
        packets_only: false,
        service: None,
        name: Some(format!("job-{node}")),
        networks: vec!["net".to_owned()],
        origin: Origin::Process { pid: 1, start: node.len() as u64, supervised: true },
        weight: 1,
        state: TaskState::Running,
        slot: None,
        program: None,
    };
    sim.own_change(&me.id, |world, fresh| change::add_task(world, &me, request, fresh)).unwrap()
}

fn worker(sim: &Sim, name: &str) -> Caller {
    Caller::Node(sim.me(name).id, Role::Worker)
}

/// A transaction of n2's that is fenced as it should be.
fn fenced(sim: &Sim) -> Txn {
    let key = records::node(&sim.me("n2").id);
    let mut txn = Txn::default();
    txn.unchanged(&key, sim.world().rev_of(&key));
    txn
}

fn tasks<'a>(sim: &'a Sim, node: &str) -> Vec<&'a Task> {
    let id = sim.me(node).id;
    sim.world().tasks.values().filter(|task| task.node == id).map(AsRef::as_ref).collect()
}

/// What n2 may not do, and what it is told.
fn refused(sim: &Sim, txn: &Txn) -> String {
    may_commit(sim.world(), &worker(sim, "n2"), txn.clone()).unwrap_err().to_string()
}

fn put(sim: &Sim, key: &str, value: &str) -> String {
    let mut txn = fenced(sim);
    txn.put(key, value);
    refused(sim, &txn)
}

#[test]
fn what_belongs_to_others_stays_theirs() {
    let sim = world();
    let (n1, n2) = (sim.me("n1").id, sim.me("n2").id);
    let theirs = tasks(&sim, "n1");
    for key in [
        records::node(&n1),
        records::live(&n1),
        records::node_guard(&n1),
        records::node_spec(&n2),
        records::identity(&n2),
        "svc/x".to_owned(),
        "net/x".to_owned(),
        "token/manager".to_owned(),
        "denied/x".to_owned(),
        "guard/ports".to_owned(),
        "claim/vip/x/1".to_owned(),
        "manager/n2id".to_owned(),
        "meta/generation".to_owned(),
        "unheard-of".to_owned(),
        "idx/svc/web".to_owned(),
    ] {
        let why = put(&sim, &key, "{}");
        assert!(why.starts_with(&format!("node n2 is a worker and may not write {key}: ")), "{why}");
        assert!(why.ends_with("on a manager"), "{why}");
        let mut txn = fenced(&sim);
        txn.delete(&key);
        refused(&sim, &txn);
    }
    for task in theirs {
        let mut txn = fenced(&sim);
        txn.delete(records::task(&task.id));
        assert!(refused(&sim, &txn).contains("it belongs to another node"));
        let stolen = Task { node: n2.clone(), ..task.clone() };
        assert!(
            put(&sim, &records::task(&task.id), &records::to_json(&stolen))
                .contains("belongs to another node")
        );
        assert!(put(&sim, &records::stop(&task.id), "{}").contains("belongs to another node"));
        for key in task.service.iter().map(|service| records::slot_claim(service, task.slot)) {
            let mut txn = fenced(&sim);
            txn.delete(&key);
            assert!(refused(&sim, &txn).contains("only together with the task that has it"));
        }
        for key in task.name.iter().map(records::task_index) {
            let mut txn = fenced(&sim);
            txn.delete(&key);
            assert!(refused(&sim, &txn).contains("it is not its own"));
        }
    }
    let mut txn = fenced(&sim);
    txn.delete("idx/node/n1");
    assert!(refused(&sim, &txn).contains("it is not its own"));
    assert!(put(&sim, "idx/node/n3", n1.as_str()).contains("it is not its own"));
    let node: Node = sim.world().nodes[&n2].as_ref().clone();
    let twin = Node { address: "192.0.2.1".parse().unwrap(), ..node };
    assert!(put(&sim, &records::node(&n2), &records::to_json(&twin)).contains("is that of node n1"));
}

#[test]
fn blocks_slots_and_addresses_are_taken_as_they_should_be() {
    let sim = world();
    let n1 = sim.me("n1").id;
    let ((network, theirs), _) = sim.world().blocks.iter().find(|(_, owner)| **owner == n1).unwrap();
    let claim = records::block_claim(network, *theirs);
    assert!(put(&sim, &claim, &Claim::held("n2id")).contains("only be claimed while nobody has it"));
    let mut txn = fenced(&sim);
    txn.delete(&claim);
    refused(&sim, &txn);
    let mut txn = fenced(&sim);
    txn.claim(format!("claim/block/{network}/200"), Claim::held("n1id"));
    assert!(refused(&sim, &txn).contains("only be claimed for the node itself"));
    // A slot without a task, and a task that has another slot.
    let mut txn = fenced(&sim);
    let service = sim.world().service("web").unwrap().id.clone();
    txn.claim(records::slot_claim(&service, 9), Claim::held("task"));
    assert!(refused(&sim, &txn).contains("only together with the task that has it"));
    let mine = tasks(&sim, "n2")[0];
    let other = tasks(&sim, "n1")[0];
    for (task, expected) in [
        (Task { slot: mine.slot + 7, ..mine.clone() }, "never change"),
        (Task { addresses: other.addresses.clone(), ..mine.clone() }, "that node n2 does not hold"),
        (Task { node: n1.clone(), ..mine.clone() }, "about a task of the node itself"),
        (Task { id: other.id.clone(), ..mine.clone() }, "about a task of the node itself"),
    ] {
        let why = put(&sim, &records::task(&mine.id), &records::to_json(&task));
        assert!(why.contains(expected), "{why}\n  lacks\n{expected}");
    }
    let mut new = mine.clone();
    for address in new.addresses.values_mut() {
        address.v4 = "192.0.2.77".parse().unwrap();
    }
    let why = put(&sim, &records::task(&mine.id), &records::to_json(&new));
    assert!(why.contains("192.0.2.77 is in no block of network net"), "{why}");
    assert!(put(&sim, &records::task(&mine.id), "nonsense").contains("makes no sense"));
}

#[test]
fn a_worker_is_fenced_by_its_epoch() {
    let sim = world();
    let me = sim.me("n2");
    let task = tasks(&sim, "n2")[0];
    let mut txn = Txn::default();
    txn.put(records::task(&task.id), records::to_json(task));
    assert!(refused(&sim, &txn).contains("on the condition that node/n2id is unchanged"));
    txn.compares.push(Compare::Exists(records::node(&me.id)));
    refused(&sim, &txn);
    // A sign of life says its epoch itself; only it is under a lease.
    let value =
        records::to_json(&Live { epoch: me.epoch, applied: Rev(1), problems: Vec::new(), ..Live::default() });
    let leased = |key: String, value: String| Op::Put { key, value, lease: Some(LeaseId(1)) };
    let live = Txn { compares: vec![], ops: vec![leased(records::live(&me.id), value)] };
    assert_eq!(may_commit(sim.world(), &worker(&sim, "n2"), live.clone()).unwrap(), live);
    let mut txn = fenced(&sim);
    txn.ops.push(leased(records::task(&task.id), records::to_json(task)));
    assert!(refused(&sim, &txn).contains("under a lease"));
    assert!(put(&sim, &records::live(&me.id), "nonsense").contains("makes no sense"));
}

/// What was judged from an old copy does not commit when things have changed since.
#[test]
fn a_judgement_holds_when_it_commits_or_not_at_all() {
    let mut sim = world();
    let me = sim.me("n2");
    let task = tasks(&sim, "n2")[0].clone();
    let change = change::forget_task(sim.world(), &me, &task.id).unwrap();
    let judged =
        may_commit(sim.world(), &Caller::Node(me.id.clone(), Role::Worker), change.txn.clone()).unwrap();
    let gone = change::forget_task(sim.world(), &me, &task.id).unwrap();
    assert!(sim.commit(&gone.txn));
    assert!(!sim.commit(&judged), "its task is no longer what was judged");
    // By a copy that does not know the task yet, it must be absent.
    let empty = Sim::new();
    let judged = may_commit(empty.world(), &Caller::Node(me.id, Role::Worker), change.txn).unwrap();
    assert!(judged.compares.contains(&Compare::Modified(records::task(&task.id), Rev(0))));
}

#[test]
fn a_node_stops_its_tasks_and_renames_itself() {
    let mut sim = world();
    let task = tasks(&sim, "n2")[0].id.clone();
    let stop = change::stop_task(sim.world(), task.as_str()).unwrap();
    may_commit(sim.world(), &worker(&sim, "n2"), stop.txn.clone()).unwrap();
    may_commit(sim.world(), &worker(&sim, "n1"), stop.txn).unwrap_err();
    let facts = NodeFacts {
        name: "other".parse().unwrap(),
        address: "192.0.2.2".parse().unwrap(),
        vxlan_port: 4789,
        boot: String::new(),
        key: String::new(),
        reflects: false,
        uplink_mtu: 1500,
        listeners: Default::default(),
        routes: Default::default(),
        version: String::new(),
    };
    let id = sim.me("n2").id;
    sim.own_change(&id, |world, fresh| change::join(world, &id, facts, fresh)).unwrap();
    let me = sim.me("other");
    let facts = NodeFacts {
        name: "other".parse().unwrap(),
        address: "192.0.2.2".parse().unwrap(),
        vxlan_port: 4789,
        boot: String::new(),
        key: String::new(),
        reflects: false,
        uplink_mtu: 1400,
        listeners: Default::default(),
        routes: Default::default(),
        version: String::new(),
    };
    sim.own_change(&me.id, |world, _| change::refresh(world, &me, &facts)).unwrap();
}

#[test]
fn managers_and_people_may_do_everything_and_workers_see_no_tokens() {
    let sim = world();
    let mut txn = Txn::default();
    txn.put("token/worker", "{}");
    for caller in [Caller::Admin, Caller::Node(NodeId::new("m"), Role::Manager)] {
        assert_eq!(may_commit(sim.world(), &caller, txn.clone()).unwrap(), txn);
        assert!(may_read(&caller, "token/worker"));
    }
    assert!(!may_read(&worker(&sim, "n1"), "token/worker"));
    assert!(may_read(&worker(&sim, "n1"), "svc/x"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Whatever a hostile worker sends: what is committed leaves all that is not its own as it was.
    #[test]
    fn nothing_of_others_changes(
        ops in proptest::collection::vec((0..100usize, 0..100usize, 0..4u8), 1..3),
        absent in proptest::option::of(0..100usize),
    ) {
        let mut sim = world();
        let me = sim.me("n2");
        let ids = |node| tasks(&sim, node).iter().map(|task| task.id.to_string()).collect::<Vec<_>>();
        let (theirs, mine) = (ids("n1"), ids("n2"));
        let kvs: Vec<_> = sim.store.range("").cloned().collect();
        let nth = |index: usize| &kvs[index % kvs.len()];
        let mut txn = fenced(&sim);
        for (at, other, kind) in &ops {
            let (key, own) = (nth(*at).key.to_string(), nth(*at).value.to_string());
            match (kind, txn.ops.iter().any(|op| op.key() == key)) {
                (_, true) => {}
                (0, _) => txn.delete(key),
                (1, _) => txn.put(key, &*nth(*other).value),
                (2, _) => txn.put(key, own.replace("n1id", "n2id")),
                (_, _) => txn.put(key, own.replace(&theirs[0], &mine[0])),
            }
        }
        txn.compares.extend(absent.map(|index| Compare::Absent(nth(index).key.to_string())));
        if let Ok(txn) = may_commit(sim.world(), &Caller::Node(me.id, Role::Worker), txn) {
            sim.commit(&txn);
            for old in kvs {
                let about = |ids: &[String]| ids.iter().any(|id| old.key.contains(id) || old.value.contains(id));
                let own = old.key.contains("n2") || old.value.contains("n2id") || about(&mine);
                if !own || about(&theirs) {
                    prop_assert_eq!(sim.store.get(&old.key), Some(&old), "{} changed", old.key);
                }
            }
        }
    }
}
