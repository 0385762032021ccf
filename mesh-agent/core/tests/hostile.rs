//! Records that somebody, or a version to come, has written: whatever is in them, decisions are taken, and the rest goes on.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::{self, Fresh, HealthWish, NetworkRequest, ProgramWish, ServiceRequest, janitor};
use mesh_core::journal::Journal;
use mesh_core::kv::{Batch, Event, KeyValue, Listing, Op, Rev, Txn};
use mesh_core::liveness::Masks;
use mesh_core::model::{
    Availability, Live, MemberRotation, NodeId, Probe, PublishedPort, Rotation, Snapshot, TrustStep,
};
use mesh_core::plan::Planner;
use mesh_core::replica::Replica;
use mesh_core::whois::Whois;
use mesh_core::{events, passive, records, replicas};
use serde_json::{Value, json};
use sim::Sim;

/// All kinds of records.
fn mesh() -> Sim {
    let mut sim = Sim::new();
    for n in 1..=3 {
        sim.join(&format!("n{n}"), &format!("192.0.2.{n}")).unwrap();
    }
    let subnets = vec!["10.30.0.0/16".parse().unwrap(), "fd00:30::/48".parse().unwrap()];
    let app =
        NetworkRequest { name: "app".to_owned(), subnets, mtu: Some(1400), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    let program = ProgramWish {
        command: Some(vec!["serve".to_owned()]),
        replicas: Some(2),
        monitor: Some(Duration::ZERO),
        ..ProgramWish::default()
    };
    let health = HealthWish { probe: Some(Some(Probe::Tcp { port: 80 })), ..HealthWish::default() };
    let port = json!({"published": 8080, "target": 80, "protocol": "tcp", "mode": "ingress"});
    let port: PublishedPort = serde_json::from_value(port).unwrap();
    for name in ["web", "db"] {
        let service = ServiceRequest {
            slow_start: Duration::from_secs(9),
            idle_timeout: Some(Duration::from_secs(60)),
            health: health.clone(),
            program: if name == "web" { program.clone() } else { ProgramWish::default() },
            ports: if name == "web" { vec![port.clone()] } else { Vec::new() },
            ..sim::service(name)
        };
        sim.change(|world, fresh| change::create_service(world, service, fresh)).unwrap();
    }
    sim.claim_blocks();
    for (service, node) in [("web", "n1"), ("web", "n2"), ("db", "n3"), ("db", "n1")] {
        sim.task(service, node).unwrap();
    }
    let task = sim.world().tasks.keys().next().unwrap().to_string();
    sim.change(|world, fresh| change::set_task_availability(world, &task, Availability::Drain, fresh))
        .unwrap();
    sim.change(|world, fresh| change::set_availability(world, "n3", Availability::Pause, fresh)).unwrap();
    let mut txn = Txn::default();
    for id in sim.world().nodes.keys() {
        txn.put(records::live(id), records::to_json(&Live { epoch: 1, applied: Rev(9), ..Live::default() }));
    }
    let node = sim.world().nodes.keys().next().unwrap().clone();
    txn.put(records::down(&node), json!({"epoch": 1, "by": ["n2id"], "since": 5}).to_string());
    let certificate = json!({"serial": "00", "until": 9_000_000_000_000_u64});
    txn.put(records::identity(&node), json!({"role": "manager", "certificates": [certificate]}).to_string());
    txn.put(records::denied("07"), json!({"node": "n9", "until": 9_000_000_000_000_u64}).to_string());
    txn.put(records::ROTATION, records::to_json(&Rotation { authority: "a".to_owned(), settled: false }));
    let members = MemberRotation {
        authority: "m".to_owned(),
        step: TrustStep::Both,
        done: BTreeSet::new(),
        turn: Some(node),
    };
    txn.put(records::MEMBER_ROTATION, records::to_json(&members));
    assert!(sim.commit(&txn));
    assert!(sim.world().poison.is_empty(), "{:?}", sim.world().poison);
    sim
}

/// All that an agent decides by itself.
fn decide(world: &Snapshot, before: &Snapshot, planner: &mut Planner) {
    let silent: BTreeSet<NodeId> = world.nodes.keys().take(1).cloned().collect();
    for now in [0, 2_000_000_000_000] {
        let fresh = Fresh { id: [7; 16], now };
        for node in world.nodes.keys() {
            mesh_core::plan::desired(world, node, now);
            replicas::to_start(world, node, &silent);
            passive::judged(world, node);
            Whois::of(world, node);
        }
        if let Some(node) = before.nodes.keys().next() {
            planner.desired(world, node, &Masks::default(), now);
        }
        for (id, service) in world.services.iter() {
            let _ = replicas::conduct(world, id, now, &silent);
            replicas::shortages(world, service);
        }
        change::verdicts(world, fresh);
    }
    let overdue = world.claims.keys().map(|key| key.to_string()).collect();
    janitor(world, &overdue);
    change::settle_rotation(world);
    for node in before.nodes.values() {
        change::trust_duty(world, &node.id, "m", true, true);
        let me = change::Me { id: node.id.clone(), epoch: node.epoch };
        let _ = change::claim_blocks(world, &me);
        let _ = change::reassert(world, &me);
    }
    let mut journal = Journal::default();
    journal.note(before, &Masks::default());
    let things = journal.note(world, &Masks::default());
    events::between(before, world, &things);
    for key in world.revs.keys() {
        records::in_force(world, key);
    }
}

/// Each leaf of a value in turn is something else.
fn mutants(value: &Value) -> Vec<(String, Value)> {
    let odd = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(u16::MAX),
        json!(u32::MAX),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1.5),
        json!(true),
        json!(""),
        json!("0"),
        json!("hibernate"),
        json!("0.0.0.0"),
        json!("255.255.255.255"),
        json!("::"),
        json!("0.0.0.0/0"),
        json!("10.30.0.0/26"),
        json!("fd00:30::/96"),
        json!([]),
        json!({}),
        json!([1]),
    ];
    let mut paths = vec![String::new()];
    collect(value, "", &mut paths);
    let mut all = Vec::new();
    for path in paths {
        for odd in &odd {
            let mut mutant = value.clone();
            *mutant.pointer_mut(&path).unwrap() = odd.clone();
            all.push((format!("{path} = {odd}"), mutant));
        }
        // What a version to come adds, or leaves out.
        let mut mutant = value.clone();
        if let Some(object) = mutant.pointer_mut(&path).unwrap().as_object_mut() {
            object.insert("later".to_owned(), json!([1, 2]));
            all.push((format!("{path} with more"), mutant));
        }
        if let Some((parent, name)) = path.rsplit_once('/') {
            let mut mutant = value.clone();
            if let Some(object) = mutant.pointer_mut(parent).unwrap().as_object_mut() {
                object.remove(name);
                all.push((format!("without {path}"), mutant));
            }
        }
    }
    all
}

fn collect(value: &Value, path: &str, paths: &mut Vec<String>) {
    let mut child = |name: &str, value: &Value| {
        let path = format!("{path}/{name}");
        paths.push(path.clone());
        collect(value, &path, paths);
    };
    match value {
        Value::Object(object) => object.iter().for_each(|(name, value)| child(name, value)),
        Value::Array(array) => {
            array.iter().enumerate().for_each(|(place, value)| child(&place.to_string(), value));
        }
        _ => {}
    }
}

/// No value of any record makes a decision panic; nor does one take another record with it, or its own last good form.
#[test]
fn whatever_is_written_decisions_are_taken() {
    let sim = mesh();
    let kvs: Vec<KeyValue> = sim.store.range("").cloned().collect();
    let rev = sim.store.rev();
    let mut replica = Replica::default();
    replica.resync(Listing { cluster: "c".to_owned(), rev, kvs: kvs.clone() }, false).unwrap();
    let before = replica.world().clone();
    assert!(before.poison.is_empty());
    std::panic::set_hook(Box::new(|_| {}));
    let (mut tried, mut aside, mut broke) = (0, 0, Vec::new());
    for kv in &kvs {
        let Ok(value) = serde_json::from_str::<Value>(&kv.value) else { continue };
        for (what, mutant) in mutants(&value) {
            let text = mutant.to_string();
            let written = KeyValue { value: text.as_str().into(), modified: Rev(rev.0 + 1), ..kv.clone() };
            let mut copy = replica.clone();
            let decided = catch_unwind(AssertUnwindSafe(|| {
                let mut planner = Planner::default();
                let first = before.nodes.keys().next().unwrap();
                planner.desired(&before, first, &Masks::default(), 0);
                copy.apply(Batch { rev: Rev(rev.0 + 1), events: vec![Event::Put(written)] });
                decide(copy.world(), &before, &mut planner);
            }));
            tried += 1;
            if decided.is_err() {
                broke.push(format!("{}: {what}", kv.key));
                continue;
            }
            let world = copy.world();
            if world.poison.is_empty() {
                continue;
            }
            aside += 1;
            assert_eq!(world.poison.keys().collect::<Vec<_>>(), [&*kv.key]);
            if records::matters(&kv.key) {
                let same = (&world.networks, &world.services, &world.tasks, &world.nodes, &world.blocks)
                    == (&before.networks, &before.services, &before.tasks, &before.nodes, &before.blocks);
                assert!(same, "{}: {what}: what was there stays in force", kv.key);
                assert_eq!(
                    records::in_force(world, &kv.key),
                    records::in_force(&before, &kv.key),
                    "{}: {what}",
                    kv.key
                );
            }
        }
    }
    drop(std::panic::take_hook());
    assert!(broke.is_empty(), "{} of {tried}:\n{}", broke.len(), broke.join("\n"));
    assert!(tried > 2000 && aside > 500, "{tried} tried, {aside} set aside");
}

/// What a node says of itself and its tasks it says again; nobody's else, and nothing of an agent that was overtaken.
#[test]
fn a_node_writes_anew_what_is_its_own() {
    let mut sim = mesh();
    let me = sim.me("n1");
    let own = Arc::clone(&sim.world().tasks.on(&me.id)[0]);
    let other = Arc::clone(sim.world().tasks.values().find(|task| task.node != me.id).unwrap());
    let before = sim.world().clone();
    let mut txn = Txn::default();
    for key in [records::task(&own.id), records::task(&other.id), records::node(&me.id)] {
        txn.put(key, "{");
    }
    assert!(sim.commit(&txn));
    assert_eq!(sim.world().poison.len(), 3);
    assert_eq!((&sim.world().tasks, &sim.world().nodes), (&before.tasks, &before.nodes));
    sim.own_change(&me.id, |world, _| change::reassert(world, &me)).unwrap();
    assert_eq!(sim.world().poison.keys().collect::<Vec<_>>(), [&records::task(&other.id)]);
    assert_eq!((&sim.world().tasks, &sim.world().nodes), (&before.tasks, &before.nodes));
    let again = change::reassert(sim.world(), &me).unwrap();
    assert!(again.txn.ops.is_empty());
    let late = change::Me { epoch: me.epoch - 1, ..me };
    change::reassert(sim.world(), &late).unwrap_err();
    // Whoever is asked to change it mends what is the mesh's.
    let mut txn = Txn::default();
    txn.ops.push(Op::Put { key: records::node_spec(&other.node), value: "7".to_owned(), lease: None });
    assert!(sim.commit(&txn) && sim.world().poison.len() == 2);
    let name = sim.world().nodes[&other.node].name.to_string();
    sim.change(|world, fresh| change::set_availability(world, &name, Availability::Drain, fresh)).unwrap();
    assert_eq!(sim.world().poison.len(), 1);
}
