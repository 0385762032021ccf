//! Records that an older version wrote.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::time::Duration;

use mesh_core::change::{self, NetworkRequest};
use mesh_core::kv::Txn;
use mesh_core::model::{Availability, NodeSpec, ReturnPath, Service, Task};
use mesh_core::records;
use sim::Sim;

/// Nodes are upgraded one after the other, and the store is not at all.
#[test]
fn records_of_older_agents_mean_what_they_meant() {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    let task = sim.task("web", "n1").unwrap();
    let web = sim.world().services.values().next().unwrap().as_ref().clone();
    let spec = NodeSpec { availability: Availability::Pause, ..NodeSpec::default() };
    let mut txn = Txn::default();
    let mut without = |key: String, record: String, fields: &[&str]| {
        let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let record = record.as_object_mut().unwrap();
        for field in fields {
            assert!(record.remove(*field).is_some(), "{field} is in {record:?}");
        }
        txn.put(key, serde_json::to_string(record).unwrap());
    };
    let slow = Service {
        idle_timeout: Some(Duration::from_secs(10)),
        slow_start: Duration::from_secs(9),
        return_path: ReturnPath::Snat,
        ..web.clone()
    };
    without(
        records::service(&web.id),
        records::to_json(&slow),
        &["return_path", "idle_timeout", "slow_start"],
    );
    without(records::task(&task.id), records::to_json(&task), &["ready_since"]);
    without(records::node_spec(&task.node), records::to_json(&spec), &["undrained"]);
    assert!(sim.commit(&txn));
    assert_eq!(*sim.world().services[&web.id], web);
    assert_eq!(*sim.world().tasks[&task.id], Task { ready_since: 0, ..task.clone() });
    assert_eq!(sim.world().specs[&task.node], spec);
    assert!(sim.world().poison.is_empty());
}
