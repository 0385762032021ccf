//! Why a flow goes where it goes, while the records say one thing and the nodes another.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use mesh_core::change::{self, NetworkRequest, ServiceRequest};
use mesh_core::explain::{Explanation, Flow, explain};
use mesh_core::liveness::{Masks, Notice, Verdict};
use mesh_core::model::{Protocol, PublishMode, PublishedPort};
use sim::Sim;

/// With a service of one port, which these may use.
fn two_nodes(allow: &[&str]) -> Sim {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    let port = PublishedPort {
        published: 8080,
        target: 80,
        protocol: Protocol::Tcp,
        mode: PublishMode::Ingress,
        host_ip: Vec::new(),
        nodes: Vec::new(),
        allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
    };
    let web = ServiceRequest { ports: vec![port], ..sim::service("web") };
    sim.change(|world, fresh| change::create_service(world, web, fresh)).unwrap();
    sim
}

fn asked(sim: &Sim, masks: &Masks, client: &str) -> Explanation {
    let (client, destination) = (client.parse().unwrap(), "192.0.2.1".parse().unwrap());
    let flow = Flow { client, destination, port: 8080, protocol: Protocol::Tcp };
    let id = sim.world().node("n1").unwrap().id.clone();
    explain(sim.world(), masks, &id, &flow, sim.now())
}

#[test]
fn a_node_that_does_not_answer_gets_nothing_and_it_is_said_why() {
    let mut sim = two_nodes(&[]);
    let [near, far] = ["n1", "n2"].map(|node| sim.task("web", node).unwrap());
    let told = asked(&sim, &Masks::default(), "198.51.100.1");
    assert_eq!((told.backends.len(), told.excluded.len()), (2, 0));

    let mut masks = Masks::default();
    masks.nodes.insert(far.node.clone(), Verdict::Dead);
    let told = asked(&sim, &masks, "198.51.100.1");
    let name = |task| sim.world().task_name(task);
    assert_eq!(told.backends.iter().map(|share| share.task.clone()).collect::<Vec<_>>(), [name(&near)]);
    assert_eq!(told.excluded, [(name(&far), "its node n2 does not answer this one".to_owned())]);

    masks.tasks.insert(near.id.clone(), Notice::Gone);
    let told = asked(&sim, &masks, "198.51.100.1");
    // Rather to one that is not heard than to nobody.
    assert_eq!(told.backends.iter().map(|share| share.task.clone()).collect::<Vec<_>>(), [name(&far)]);
    assert_eq!(told.excluded, [(name(&near), "it has ended, as its node says".to_owned())]);
}

#[test]
fn who_may_not_use_a_port_is_told_who_may() {
    let mut sim = two_nodes(&["10.0.0.0/8", "192.168.0.0/16"]);
    sim.task("web", "n1").unwrap();
    assert!(!asked(&sim, &Masks::default(), "10.1.2.3").refused);
    let told = asked(&sim, &Masks::default(), "198.51.100.1");
    assert!(told.refused && told.backends.is_empty());
    assert_eq!(told.frontend.as_deref(), Some("published port 8080/tcp"));
    assert_eq!(told.service.as_deref(), Some("web"));
    assert_eq!(
        told.verdict,
        "refused: it is open to 10.0.0.0/8, 192.168.0.0/16 only, and 198.51.100.1 is not in it"
    );
}
