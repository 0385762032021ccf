//! What a service is to have and cannot be given.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::sync::Arc;

use mesh_core::change::{self, NetworkRequest, ProgramWish, ServiceRequest};
use mesh_core::kv::{Op, Txn};
use mesh_core::model::{Availability, Live, RunFailure};
use mesh_core::records;
use mesh_core::replicas::{Shortage, shortages};
use sim::Sim;

/// Nodes that show life, a network, and a service of so many tasks that the mesh runs.
fn mesh(nodes: usize, subnet: &str, replicas: u32) -> Sim {
    let mut sim = Sim::new();
    for n in 1..=nodes {
        sim.join(&format!("n{n}"), &format!("192.0.2.{n}")).unwrap();
        live(&mut sim, &format!("n{n}"), Live::default());
    }
    let subnets = vec![subnet.parse().unwrap()];
    let app = NetworkRequest { name: "app".to_owned(), subnets, ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    let program = ProgramWish {
        command: Some(vec!["serve".to_owned()]),
        replicas: Some(replicas),
        ..ProgramWish::default()
    };
    let web = ServiceRequest { program, ..sim::service("web") };
    sim.change(|world, fresh| change::create_service(world, web, fresh)).unwrap();
    sim
}

fn live(sim: &mut Sim, node: &str, live: Live) {
    let put = Op::Put { key: records::live(&sim.me(node).id), value: records::to_json(&live), lease: None };
    assert!(sim.commit(&Txn { compares: Vec::new(), ops: vec![put] }));
}

fn told(sim: &Sim) -> Vec<String> {
    let all = shortages(sim.world(), sim.world().service("web").unwrap());
    all.iter().map(|Shortage { object, reason, cure: _ }| format!("{object}: {reason}")).collect()
}

#[test]
fn no_node_takes_tasks() {
    let mut sim = mesh(3, "10.9.0.0/16", 2);
    assert_eq!(told(&sim), [""; 0], "they are about to start");
    for (node, to) in [("n1", Availability::Drain), ("n2", Availability::Pause)] {
        sim.change(|world, fresh| change::set_availability(world, node, to, fresh)).unwrap();
        assert_eq!(told(&sim), [""; 0]);
    }
    let silent = Txn { compares: Vec::new(), ops: vec![Op::Delete(records::live(&sim.me("n3").id))] };
    assert!(sim.commit(&silent));
    let of = "of 3 nodes 1 drained, 1 paused, 1 without a sign of life";
    assert_eq!(told(&sim), [format!("web.*: no suitable node for 2 tasks ({of})")]);
}

#[test]
fn a_command_does_not_run() {
    let mut sim = mesh(1, "10.9.0.0/16", 1);
    let service = Arc::clone(sim.world().service("web").unwrap());
    let version = service.program.as_ref().unwrap().version;
    let failure = RunFailure { version, count: 3, message: "no such file".to_owned() };
    let failures = [(service.id.clone(), failure)].into();
    live(&mut sim, "n1", Live { failures, ..Live::default() });
    assert_eq!(told(&sim), ["web.*: its command does not run on node n1 (tried 3 times): no such file"]);
    sim.task("web", "n1").unwrap();
    // One that somebody else started is no reason.
    assert_eq!(told(&sim).len(), 1);
}

/// A /26 has 15 blocks of one task each.
#[test]
fn a_network_is_full() {
    let mut sim = mesh(3, "10.9.0.0/26", 4);
    let mut started = 0;
    while sim.task("web", "n1").is_ok() {
        started += 1;
    }
    assert_eq!(started, 15);
    let told = told(&sim);
    assert!(told.len() >= 2, "{told:#?}");
    let full = "could not find an available block: all 15 of network app (10.9.0.0/26) are taken";
    assert!(told[0].starts_with("web.") && told[0].contains(full), "{told:#?}");
    let last = &told[told.len() - 1];
    let without =
        "n2: node n2 and 1 more forwards nothing to network app: all 15 blocks of 10.9.0.0/26 are taken";
    assert_eq!(last, without);
}
