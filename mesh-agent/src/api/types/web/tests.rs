use std::sync::Arc;

use mesh_core::kv::Rev;
use mesh_core::liveness::Verdict;
use mesh_core::model::{Network, Node, Service, ServiceId, Task};
use mesh_core::records;
use serde_json::{Value, json};

use super::*;

/// What must never be told.
const SECRET: &str = "hunter2";

/// Nodes n1 and n2, network app, service web.
fn world(tasks: &[Value]) -> Snapshot {
    let mut world = Snapshot::default();
    for name in ["n1", "n2"] {
        let node: Node = serde_json::from_value(json!({
            "id": name, "name": name, "address": "192.0.2.1", "vxlan_port": 4789, "epoch": 1, "boot": "b",
            "uplink_mtu": 1500, "listeners": [], "routes": [], "version": "0", "started": 0, "key": SECRET}))
        .unwrap();
        world.nodes.insert(node.id.clone(), Arc::new(node));
    }
    let network: Network = serde_json::from_value(json!({
        "id": "net", "name": "app", "v4": "10.0.0.0/16", "v6": "fd00::/64", "vni": 4096, "mtu": null,
        "internal": false, "encrypted": false, "labels": {"a": SECRET}, "created": 0}))
    .unwrap();
    world.networks.insert(network.id.clone(), Arc::new(network));
    let service: Service = serde_json::from_value(json!({
        "id": "svc", "name": "web", "mode": "vip", "balancing": "random", "affinity": {"kind": "none"},
        "networks": [{"network": "net", "vip": {"v4": "10.0.0.5", "v6": "fd00::5"}}], "locality": "spread",
        "ports": [{"published": 8080, "target": 80, "protocol": "tcp", "mode": "ingress"}],
        "drain_timeout": {"secs": 1, "nanos": 0}, "labels": {"password": SECRET}, "version": 1, "created": 0,
        "updated": 0}))
    .unwrap();
    world.revs.insert(records::service(&ServiceId::new("svc")).into(), Rev(1));
    world.services.insert(service.id.clone(), Arc::new(service));
    for task in tasks {
        let task: Task = serde_json::from_value(task.clone()).unwrap();
        world.tasks.insert(task.id.clone(), Arc::new(task));
    }
    world
}

/// A task that serves, but for what is said of it.
fn task(slot: u32, other: Value) -> Value {
    let mut task = json!({
        "id": format!("t{slot}"), "service": "svc", "slot": slot, "node": "n1", "epoch": 1, "weight": 1,
        "addresses": {"net": {"v4": format!("10.0.1.{}", slot % 256), "v6": null}}, "state": "running", "health": "none",
        "draining": false, "message": format!("health check curl http://u:{SECRET}@x"), "created": 0,
        "updated": 0, "origin": {"kind": "netns", "path": format!("/run/{SECRET}")}});
    for (key, value) in other.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn seen(world: &Snapshot, status: &Status) -> WebState {
    WebState::of(world, &NodeId::new("n1"), status, &BTreeMap::new(), true)
}

#[test]
fn each_task_has_one_word() {
    let sick = json!({"since": 1, "row": 1, "why": "refuses"});
    let cases = [
        (json!({}), Condition::Serving, ""),
        (json!({"state": "starting"}), Condition::Starting, "is Starting, not Running"),
        (
            json!({"health": "starting"}),
            Condition::Starting,
            "is starting: its health check has not succeeded yet",
        ),
        (json!({"health": "unhealthy"}), Condition::Unhealthy, "its health check fails"),
        (json!({"draining": true}), Condition::Draining, "is draining"),
        (json!({"weight": 0}), Condition::Idle, "has weight 0"),
        (json!({"state": "failed"}), Condition::Failed, "is Failed, not Running"),
        (json!({"state": "complete", "draining": true}), Condition::Ended, "is Complete, not Running"),
        (json!({"node": "n2"}), Condition::Unreachable, "its node does not answer this one"),
        (json!({"node": "gone"}), Condition::Unreachable, "its node does not answer this one"),
        (json!({"service": null, "slot": 0, "name": "look"}), Condition::Running, ""),
        (json!({"ejected": sick}), Condition::Ejected, "ejected: refuses connections"),
    ];
    let status = Status {
        silent: Arc::new(BTreeMap::from([(NodeId::new("n2"), Verdict::Dead)]).into()),
        ..Status::default()
    };
    for (other, condition, reason) in cases {
        // Beside two that serve: else none would be left out.
        let state = seen(&world(&[task(1, other.clone()), task(2, json!({})), task(3, json!({}))]), &status);
        let told = state.tasks.iter().find(|task| task.id == "t1").unwrap();
        assert_eq!((told.condition, told.reason.as_str()), (condition, reason), "{other}");
        let serving = state.tasks.iter().filter(|task| task.condition == Condition::Serving).count();
        assert_eq!(state.services[0].running_tasks, serving, "{other}");
    }
}

#[test]
fn nothing_is_told_that_people_or_programs_wrote() {
    let mut world = world(&[
        task(1, json!({})),
        task(2, json!({"health": "unhealthy"})),
        task(3, json!({"state": "failed"})),
    ]);
    let live = model::Live { problems: vec![format!("command: {SECRET}")], ..model::Live::default() };
    world.live.insert(NodeId::new("n2"), live);
    let mut status = Status::default();
    let mut plane = crate::status::PlaneStatus::default();
    plane.last.errors.insert("rule".to_owned(), SECRET.to_owned());
    status.planes.insert("overlay", plane);
    let state = seen(&world, &status);
    assert!(!serde_json::to_string(&state).unwrap().contains(SECRET));
    assert_eq!((state.node.failing, state.nodes[1].problems), (1, 1), "only how many");
}

#[test]
fn all_is_in_order_and_not_without_end() {
    let mut tasks: Vec<_> = (1..=12).map(|slot| task(slot, json!({}))).collect();
    tasks.push(task(99, json!({"service": null, "slot": 0, "name": "a", "node": "gone"})));
    let state = seen(&world(&tasks), &Status::default());
    let names: Vec<_> = state.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!((names[8], names[9], names[12]), ("web.9", "web.10", "a"));
    assert_eq!(state.nodes[0].message, "it is not in the mesh");
    let web = &state.services[0];
    assert_eq!((web.running_tasks, web.desired_tasks), (12, 12));
    assert_eq!(web.virtual_ips, ["10.0.0.5", "fd00::5"]);
    assert_eq!((web.ports[0].published, web.networks[0].as_str()), (8080, "app"));

    let many: Vec<_> = (1..=MOST_TASKS as u32 + 2).map(|slot| task(slot, json!({}))).collect();
    let state = seen(&world(&many), &Status::default());
    assert_eq!((state.tasks.len(), state.tasks_left_out), (MOST_TASKS, 2));
}

#[test]
fn rates_are_of_tasks_and_of_the_time_between() {
    let world = world(&[task(1, json!({})), task(2, json!({}))]);
    let load = |address: &str, flows, bytes, active| {
        let stats = Stats { flows, packets: 2 * flows, bytes };
        (Served { vni: Vni(4096), address: address.parse().unwrap(), active: true, stats }, active)
    };
    let before = sums(&world, &[load("10.0.1.1", 10, 1000, 1), load("10.0.9.9", 1, 1, 1)]);
    assert_eq!(before, [(TaskId::new("t1"), Sum { flows: 10, packets: 20, bytes: 1000, active: 1 })].into());
    let after = sums(&world, &[load("10.0.1.1", 25, 4000, 3), load("10.0.1.2", 0, 0, 0)]);
    let rates = WebRates::between(&before, &after, Duration::from_secs(2)).tasks;
    assert_eq!(rates, [("t1".to_owned(), [7.5, 1500.0, 3.0])].into(), "who gets nothing is left out");
    // Counters that began anew are no rate.
    let rates = WebRates::between(&after, &before, Duration::from_secs(1)).tasks;
    assert_eq!(rates["t1"], [0.0, 0.0, 1.0]);
}
