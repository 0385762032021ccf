//! What a task's health means for plan and names.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeMap;

use mesh_core::change::{self, Fresh, HealthWish, NetworkRequest, ServiceRequest, ServiceUpdate, TaskChange};
use mesh_core::dns::{Answer, Question};
use mesh_core::liveness::{Masks, Verdict};
use mesh_core::model::{Health, HealthCheck, Probe, Task, TaskState};
use mesh_core::plan::{self, Frontend};
use sim::Sim;

fn service(health: HealthWish) -> ServiceRequest {
    ServiceRequest { health, ..sim::service("web") }
}

/// A mesh of one node with three tasks of `web`.
fn three(health: HealthWish) -> (Sim, Vec<Task>) {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, service(health), fresh)).unwrap();
    let tasks = (0..3).map(|_| sim.task("web", "n1").unwrap()).collect();
    (sim, tasks)
}

fn tcp() -> HealthWish {
    HealthWish { probe: Some(Some(Probe::Tcp { port: 80 })), ..HealthWish::default() }
}

fn set(sim: &mut Sim, task: &Task, health: Health, checked: bool) -> Result<Task, change::Refusal> {
    let me = change::Me { id: task.node.clone(), epoch: task.epoch };
    let change = TaskChange {
        health: Some(health),
        state: Some(TaskState::Running),
        checked,
        ..TaskChange::default()
    };
    sim.change(|world, fresh| change::change_task(world, &me, &task.id, change, fresh))
}

/// How many get flows, how many the name has, and what is to be told.
fn serve(sim: &Sim) -> (usize, usize, usize) {
    let node = sim.world().nodes.keys().next().unwrap();
    shown(sim, &plan::desired(sim.world(), node, 0))
}

fn shown(sim: &Sim, desired: &plan::Desired) -> (usize, usize, usize) {
    let world = sim.world();
    let vip = |frontend: &&Frontend| matches!(frontend, Frontend::Vip { .. });
    let frontend = desired.balance.frontends.keys().find(vip).unwrap();
    let network = world.networks.keys().next().unwrap().clone();
    let named = match desired.zone.answer(&[network], "tasks.web", Question::A, 1) {
        Answer::Addresses(addresses) => addresses.len(),
        _ => 0,
    };
    let told = desired.problems.iter().filter(|problem| problem.message.contains("--health-panic")).count();
    (desired.balance.frontends[frontend].backends.len(), named, told)
}

#[test]
fn only_healthy_tasks_serve() {
    let (mut sim, tasks) = three(tcp());
    assert_eq!(serve(&sim), (0, 0, 0), "they are only starting");
    for (count, task) in tasks.iter().enumerate() {
        set(&mut sim, task, Health::Healthy, true).unwrap();
        assert_eq!(serve(&sim), (count + 1, count + 1, 0));
    }
    for (count, task) in tasks.iter().enumerate() {
        set(&mut sim, task, Health::Unhealthy, true).unwrap();
        assert_eq!(serve(&sim), (2 - count, 2 - count, 0));
    }
}

/// Where most are sick all serve, but none that has only begun.
#[test]
fn most_of_them_cannot_be_sick() {
    let (mut sim, tasks) = three(HealthWish { panic: Some(50), ..tcp() });
    set(&mut sim, &tasks[0], Health::Healthy, true).unwrap();
    assert_eq!(serve(&sim), (1, 1, 0), "two have just begun");
    for task in &tasks {
        set(&mut sim, task, Health::Healthy, true).unwrap();
    }
    set(&mut sim, &tasks[0], Health::Unhealthy, true).unwrap();
    assert_eq!(serve(&sim), (2, 2, 0));
    set(&mut sim, &tasks[1], Health::Unhealthy, true).unwrap();
    assert_eq!(serve(&sim), (3, 3, 1));
    let world = sim.world();
    let serves =
        |task: &Task| world.serves(&world.tasks[&task.id], &world.turnout_for(&world.tasks[&task.id]));
    assert!(tasks.iter().all(serves));
    set(&mut sim, &tasks[1], Health::Healthy, true).unwrap();
    assert_eq!(serve(&sim), (2, 2, 0));
}

/// A node that does not answer has no well tasks for this one, neither by VIP nor by name; and where that leaves the sick
/// alone, these get all, as they would without it.
#[test]
fn whom_nobody_hears_is_not_found_and_does_not_count_as_well() {
    let (mut sim, mut tasks) = three(HealthWish { panic: Some(50), ..tcp() });
    sim.join("n2", "192.0.2.2").unwrap();
    tasks.push(sim.task("web", "n2").unwrap());
    for task in &tasks {
        set(&mut sim, task, Health::Healthy, true).unwrap();
    }
    let silent = &tasks[3].node;
    let masked = |sim: &Sim, verdict| {
        let masks = Masks::from(BTreeMap::from([(silent.clone(), verdict)]));
        shown(sim, &plan::Planner::default().desired(sim.world(), &tasks[0].node, &masks, 0))
    };
    assert_eq!(serve(&sim), (4, 4, 0));
    for verdict in [Verdict::Dead, Verdict::PathDown, Verdict::Leaving] {
        assert_eq!(masked(&sim, verdict), (3, 3, 0), "{verdict:?}");
    }
    for task in &tasks[1..3] {
        set(&mut sim, task, Health::Unhealthy, true).unwrap();
    }
    assert_eq!(serve(&sim), (2, 2, 0), "half are well");
    assert_eq!(masked(&sim, Verdict::Dead), (3, 3, 1), "one of three");
    set(&mut sim, &tasks[0], Health::Unhealthy, true).unwrap();
    assert_eq!(masked(&sim, Verdict::Dead), (3, 3, 1), "sick ones, and not the dead");
    sim.change(|world, _| change::update_service(world, "web", no_panic(), Fresh { id: [7; 16], now: 0 }))
        .unwrap();
    assert_eq!(masked(&sim, Verdict::Dead), (1, 1, 0), "the only one that may serve all the same");
    assert_eq!(masked(&sim, Verdict::Leaving), (0, 0, 0), "who leaves serves nobody");
}

fn no_panic() -> ServiceUpdate {
    ServiceUpdate {
        health: HealthWish { panic: Some(0), ..HealthWish::default() },
        ..ServiceUpdate::default()
    }
}

/// Whoever registered a task may say how it is, unless a check finds out.
#[test]
fn a_check_has_the_last_word() {
    let (mut sim, tasks) = three(HealthWish::default());
    for task in &tasks {
        set(&mut sim, task, Health::None, false).unwrap();
    }
    set(&mut sim, &tasks[0], Health::Unhealthy, false).unwrap();
    assert_eq!(serve(&sim), (2, 2, 0));
    let update = ServiceUpdate { health: tcp(), ..ServiceUpdate::default() };
    let web = sim.change(|world, fresh| change::update_service(world, "web", update, fresh)).unwrap();
    assert_eq!(web.health, Some(HealthCheck::new(Probe::Tcp { port: 80 })));
    assert_eq!(serve(&sim), (2, 2, 0), "who served without a check goes on until it fails");
    let refused = set(&mut sim, &tasks[1], Health::Healthy, false).unwrap_err().to_string();
    assert!(refused.contains("web.2") && refused.contains("tcp:80"), "{refused}");
}
