//! Whose sockets may be balanced.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use mesh_core::change::{self, NetworkRequest};
use mesh_core::model::Task;
use mesh_core::plan::{self, endpoint_device};
use mesh_core::records;
use sim::Sim;

#[test]
fn a_task_that_wants_its_packets_balanced_has_its_sockets_left_alone() {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    sim.claim_blocks();
    let [led, left] = [(); 2].map(|()| sim.task("web", "n1").unwrap());
    let mut txn = mesh_core::kv::Txn::default();
    txn.put(records::task(&left.id), records::to_json(&Task { packets_only: true, ..left.clone() }));
    assert!(sim.commit(&txn));
    let balance = plan::desired(sim.world(), &led.node, 0).balance;
    let device = |task: &Task| endpoint_device(&task.id, task.addresses.keys().next().unwrap());
    assert_eq!(balance.origins.keys().collect::<Vec<_>>(), [&device(&led)]);
    assert!(balance.ports.contains_key(&device(&left)));
}
