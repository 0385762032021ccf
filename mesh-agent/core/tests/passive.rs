//! What follows from what tasks make of connections: for the record, the plan and names.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_core::change::{
    self, HealthWish, NetworkRequest, Refusal, ServiceRequest, ServiceUpdate, TaskChange,
};
use mesh_core::dns::{Answer, Question};
use mesh_core::explain::why_not;
use mesh_core::liveness::{Masks, Verdict};
use mesh_core::model::{
    Discovery, Ejected, Health, Locality, PortName, Probe, Protocol, PublishMode, PublishedPort, Sickness,
    Task, TaskId,
};
use mesh_core::passive::{Counts, Judge, judged};
use mesh_core::plan::{self, Frontend};
use sim::Sim;

const TCP: Protocol = Protocol::Tcp;

fn port(target: u16, mode: PublishMode) -> PublishedPort {
    let (host_ip, nodes, allow) = Default::default();
    PublishedPort { published: 8080, target, protocol: TCP, mode, host_ip, nodes, allow }
}

/// `web` with so many tasks on each of two nodes.
fn mesh(service: ServiceRequest, each: usize) -> (Sim, Vec<Task>) {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, service, fresh)).unwrap();
    let tasks = (0..2 * each).map(|n| sim.task("web", if n < each { "n1" } else { "n2" }).unwrap()).collect();
    (sim, tasks)
}

fn web() -> ServiceRequest {
    ServiceRequest { ports: vec![port(80, PublishMode::Ingress)], ..sim::service("web") }
}

fn set(sim: &mut Sim, task: &Task, change: TaskChange) -> Result<Task, Refusal> {
    let me = change::Me { id: task.node.clone(), epoch: task.epoch };
    sim.change(|world, fresh| change::change_task(world, &me, &task.id, change, fresh))
}

fn eject(sim: &mut Sim, task: &Task, since: u64) {
    let ejected = Ejected { since, row: 1, why: Sickness::Refuses };
    set(sim, task, TaskChange { ejected: Some(Some(ejected)), ..TaskChange::default() }).unwrap();
}

fn let_in(sim: &mut Sim, task: &Task) {
    set(sim, task, TaskChange { ejected: Some(None), ..TaskChange::default() }).unwrap();
}

/// Who gets flows by a node's published port, by the places in `tasks`.
fn serve(sim: &Sim, node: &str, tasks: &[Task]) -> Vec<usize> {
    let world = sim.world();
    places(&plan::desired(world, &world.node(node).unwrap().id, 0), tasks)
}

fn places(desired: &plan::Desired, tasks: &[Task]) -> Vec<usize> {
    let published = |(frontend, _): &(&Frontend, _)| matches!(frontend, Frontend::Published { .. });
    let Some((_, pool)) = desired.balance.frontends.iter().find(published) else { return Vec::new() };
    let place = |id: &TaskId| tasks.iter().position(|task| task.id == *id).unwrap();
    pool.backends.iter().map(|backend| place(&backend.id)).collect()
}

fn problems(sim: &Sim) -> usize {
    let world = sim.world();
    plan::desired(world, &world.node("n1").unwrap().id, 0).problems.len()
}

#[test]
fn half_of_them_at_most_are_left_out_those_first_that_were_sick_first() {
    let (mut sim, tasks) = mesh(web(), 2);
    assert_eq!(serve(&sim, "n1", &tasks), [0, 1, 2, 3]);
    for (count, (place, since)) in [(0, 40), (1, 30), (2, 20), (3, 10)].into_iter().enumerate() {
        assert_eq!(problems(&sim), usize::from(count > 2));
        eject(&mut sim, &tasks[place], since);
    }
    for node in ["n1", "n2"] {
        assert_eq!(serve(&sim, node, &tasks), [0, 1]);
    }
    let world = sim.world();
    let network = world.networks.keys().next().unwrap().clone();
    let zone = plan::desired(world, &tasks[0].node, 0).zone;
    let Answer::Addresses(named) = zone.answer(&[network], "tasks.web", Question::A, 1) else { panic!() };
    assert_eq!(named.len(), 2, "names lead to those that serve");
    assert_eq!(why_not(world, &world.tasks[&tasks[3].id]), "ejected: refuses connections");
    let_in(&mut sim, &tasks[3]);
    assert_eq!(serve(&sim, "n1", &tasks), [0, 3], "another one's turn");
}

#[test]
fn the_only_one_is_never_left_out() {
    let (mut sim, tasks) = mesh(web(), 1);
    eject(&mut sim, &tasks[0], 1);
    assert_eq!(serve(&sim, "n1", &tasks), [1]);
    set(&mut sim, &tasks[1], TaskChange { draining: Some(true), ..TaskChange::default() }).unwrap();
    assert_eq!(serve(&sim, "n1", &tasks), [0], "whoever cannot serve does not count");
}

/// Who is sick may be well again; who is dead is not.
#[test]
fn a_sick_one_is_better_than_one_of_a_dead_node() {
    let (mut sim, tasks) = mesh(web(), 1);
    eject(&mut sim, &tasks[0], 1);
    let masked = |sim: &Sim, verdict| {
        let (world, mut planner) = (sim.world(), plan::Planner::default());
        let masks = Masks::from(BTreeMap::from([(tasks[1].node.clone(), verdict)]));
        let desired = planner.desired(world, &tasks[0].node, &masks, 0);
        places(&desired, &tasks)
    };
    assert_eq!(serve(&sim, "n1", &tasks), [1]);
    for verdict in [Verdict::Dead, Verdict::AgreedDown, Verdict::PathDown, Verdict::Leaving] {
        assert_eq!(masked(&sim, verdict), [0], "{verdict:?}");
    }
    let third = sim.task("web", "n1").unwrap();
    let tasks = [tasks, vec![third]].concat();
    let (world, masks) = (sim.world(), Masks::from(BTreeMap::from([(tasks[1].node.clone(), Verdict::Dead)])));
    let desired = plan::Planner::default().desired(world, &tasks[0].node, &masks, 0);
    assert_eq!(places(&desired, &tasks), [2], "a well one is better than both");
}

/// Where nobody who could serve is heard all are tried, and of those the sick are left out as if they were heard.
#[test]
fn who_is_sick_does_not_come_back_where_nobody_is_heard() {
    let (mut sim, tasks) = mesh(web(), 1);
    let here = sim.join("n9", "192.0.2.9").unwrap();
    eject(&mut sim, &tasks[0], 1);
    let masks = [0, 1].map(|place| (tasks[place].node.clone(), Verdict::Dead));
    let masks = Masks::from(BTreeMap::from(masks));
    let desired = plan::Planner::default().desired(sim.world(), &here, &masks, 0);
    assert_eq!(places(&desired, &tasks), [1]);
}

/// Where a node's own tasks alone get what comes to it, others' do not help.
#[test]
fn no_node_is_left_without_one_that_needs_its_own() {
    let local = ServiceRequest { locality: Locality::LocalOnly, ..web() };
    let host = ServiceRequest { ports: vec![port(80, PublishMode::Host)], ..web() };
    for service in [local, host] {
        let (mut sim, tasks) = mesh(service, 2);
        eject(&mut sim, &tasks[0], 1);
        eject(&mut sim, &tasks[1], 2);
        assert_eq!(serve(&sim, "n1", &tasks), [1]);
        assert_eq!(serve(&sim, "n2", &tasks), [2, 3]);
    }
}

/// Whoever is let in again is not new, and one that was never out of the balance by its check is not sick by it.
#[test]
fn neither_slow_starts_nor_health_nor_panic_take_notice() {
    let health =
        HealthWish { probe: Some(Some(Probe::Tcp { port: 80 })), panic: Some(60), ..HealthWish::default() };
    let (mut sim, tasks) = mesh(ServiceRequest { health, ..web() }, 1);
    for task in &tasks {
        let healthy = TaskChange { health: Some(Health::Healthy), checked: true, ..TaskChange::default() };
        set(&mut sim, task, healthy).unwrap();
    }
    let since = |sim: &Sim| sim.world().in_balance_since(&sim.world().tasks[&tasks[0].id]);
    let before = since(&sim);
    eject(&mut sim, &tasks[0], 1);
    assert_eq!((serve(&sim, "n1", &tasks), problems(&sim)), (vec![1], 0), "no panic for one of two");
    assert!(sim.world().in_balance(&sim.world().tasks[&tasks[0].id]));
    let_in(&mut sim, &tasks[0]);
    assert_eq!((serve(&sim, "n1", &tasks), since(&sim)), (vec![0, 1], before));
}

#[test]
fn only_what_is_known_to_be_served_is_judged() {
    let places = |service: ServiceRequest| {
        let (sim, tasks) = mesh(service, 1);
        let judged = judged(sim.world(), &tasks[0].node);
        assert!(judged.keys().all(|id| *id == tasks[0].id), "each node its own");
        let network = sim.world().networks.values().next().unwrap().vni;
        let places: BTreeSet<_> = judged.into_values().flatten().collect();
        assert!(places.iter().all(|place| place.vni == network));
        places.into_iter().map(|place| (place.port, place.protocol)).collect::<Vec<_>>()
    };
    let check = || HealthWish { probe: Some(Some(Probe::Tcp { port: 99 })), ..HealthWish::default() };
    let named = PortName { name: "dns".parse().unwrap(), port: 53, protocol: Protocol::Udp };
    let discovery = Discovery { port_names: vec![named], ..Discovery::default() };
    assert_eq!(places(sim::service("web")), [], "a VIP alone says nothing of ports");
    assert_eq!(places(web()), [(80, TCP)]);
    assert_eq!(places(ServiceRequest { discovery, ..web() }), [(53, Protocol::Udp), (80, TCP)]);
    assert_eq!(places(ServiceRequest { health: check(), ..web() }), [(80, TCP)]);
    assert_eq!(places(ServiceRequest { health: check(), ..sim::service("web") }), [(99, TCP)]);
    assert_eq!(places(ServiceRequest { passive_health: false, ..web() }), []);
}

#[test]
fn who_is_not_judged_any_more_is_let_in() {
    let (mut sim, tasks) = mesh(web(), 1);
    let mut judge = Judge::default();
    let mut round = |sim: &Sim, counts: Option<Counts>| {
        let ids = judged(sim.world(), &tasks[0].node);
        judge.round(sim.world(), ids.keys().map(|id| (id, counts)), Duration::ZERO, 5)
    };
    assert_eq!(round(&sim, Some(Counts::default())), []);
    let refused = Counts { begun: 3, refused: 3, ..Counts::default() };
    let ejected = Ejected { since: 5, row: 1, why: Sickness::Refuses };
    assert_eq!(round(&sim, Some(refused)), [(tasks[0].id.clone(), Some(ejected))]);
    eject(&mut sim, &tasks[0], 5);
    assert_eq!(round(&sim, Some(refused)), [], "once it is recorded there is nothing to do");
    let off = ServiceUpdate { passive_health: Some(false), ..ServiceUpdate::default() };
    sim.change(|world, fresh| change::update_service(world, "web", off, fresh)).unwrap();
    assert_eq!(serve(&sim, "n1", &tasks), [0, 1], "nobody is left out from now on");
    assert_eq!(round(&sim, None), [(tasks[0].id.clone(), None)]);
    let_in(&mut sim, &tasks[0]);
    assert_eq!(round(&sim, None), []);
}
