//! What changed since a revision.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::change::{self, HealthWish, NetworkRequest, ServiceRequest, TaskChange};
use mesh_core::journal::{Journal, Thing};
use mesh_core::kv::Rev;
use mesh_core::liveness::{Masks, Notice, Verdict};
use mesh_core::model::{Availability, Ejected, Health, Probe, Sickness, Task, TaskId, TaskState};
use mesh_core::serving::{Serving, why_not_here};
use sim::Sim;

fn two_nodes() -> Sim {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    sim
}

fn since(journal: &Journal, rev: Rev) -> Option<BTreeSet<Thing>> {
    Some(journal.since(rev)?.into_iter().cloned().collect())
}

#[test]
fn what_changed_is_told_once_and_what_did_not_is_not() {
    let mut sim = two_nodes();
    let mut journal = Journal::default();
    assert_eq!(since(&journal, Rev(0)), None, "it knows of nothing yet");
    journal.note(sim.world(), &Masks::default());
    let begin = sim.world().rev;
    assert_eq!(since(&journal, begin), Some(BTreeSet::new()));
    assert_eq!(since(&journal, Rev(begin.0 - 1)), None, "that was before it began");
    assert_eq!(since(&journal, Rev(begin.0 + 1)), None, "that is another history");

    let task = sim.task("web", "n1").unwrap();
    journal.note(sim.world(), &Masks::default());
    let added = since(&journal, begin).unwrap();
    let service = sim.world().services.keys().next().unwrap().clone();
    assert!(
        added.contains(&Thing::Task(task.id.clone())) && added.contains(&Thing::Service(service.clone()))
    );
    assert!(!added.iter().any(|thing| matches!(thing, Thing::Network(_))));

    let before = sim.world().rev;
    let ended = TaskChange { state: Some(TaskState::Failed), ..TaskChange::default() };
    sim.set("n1", &task.id, ended).unwrap();
    journal.note(sim.world(), &Masks::default());
    let expected = BTreeSet::from([Thing::Service(service), Thing::Task(task.id)]);
    assert_eq!(since(&journal, before), Some(expected));
    assert_eq!(since(&journal, sim.world().rev), Some(BTreeSet::new()));
}

#[test]
fn a_node_that_is_drained_changes_its_tasks() {
    let mut sim = two_nodes();
    let (there, elsewhere) = (sim.task("web", "n1").unwrap(), sim.task("web", "n2").unwrap());
    let mut journal = Journal::default();
    journal.note(sim.world(), &Masks::default());
    let begin = sim.world().rev;
    let to = Availability::Drain;
    sim.change(|world, fresh| change::set_availability(world, "n1", to, fresh)).unwrap();
    journal.note(sim.world(), &Masks::default());
    let changed = since(&journal, begin).unwrap();
    assert!(changed.contains(&Thing::Node(there.node.clone())) && changed.contains(&Thing::Task(there.id)));
    assert!(!changed.contains(&Thing::Task(elsewhere.id)) && !changed.contains(&Thing::Node(elsewhere.node)));
}

#[test]
fn what_is_long_ago_is_forgotten_revision_by_revision() {
    let mut sim = two_nodes();
    let mut journal = Journal::default();
    journal.note(sim.world(), &Masks::default());
    let begin = sim.world().rev;
    let mut revisions = Vec::new();
    for number in 0..=Journal::ROOM {
        let to = if number % 2 == 0 { Availability::Pause } else { Availability::Active };
        sim.change(|world, fresh| change::set_availability(world, "n1", to, fresh)).unwrap();
        journal.note(sim.world(), &Masks::default());
        revisions.push(sim.world().rev);
    }
    assert_eq!(since(&journal, begin), None);
    assert!(since(&journal, revisions[0]).is_some_and(|things| things.len() == 1));
}

/// `web` with four tasks, two on each node, and a journal that knows of them.
fn four(web: ServiceRequest) -> (Sim, [Task; 4], Journal) {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, web, fresh)).unwrap();
    let tasks = ["n1", "n1", "n2", "n2"].map(|node| sim.task("web", node).unwrap());
    let mut journal = Journal::default();
    journal.note(sim.world(), &Masks::default());
    (sim, tasks, journal)
}

/// Which of the tasks are told of after a change, and which serve then.
fn told(sim: &Sim, tasks: &[Task], journal: &mut Journal, masks: &Masks) -> (Vec<usize>, Vec<usize>) {
    let (world, before) = (sim.world(), journal.rev().unwrap());
    let things = journal.note(world, masks);
    assert!(
        since(journal, before).unwrap().is_superset(&things),
        "whoever knows all before it is told of it"
    );
    let serving = Serving::of(world, masks, world.services.keys());
    let places = |is: &dyn Fn(&TaskId) -> bool| (0..tasks.len()).filter(|n| is(&tasks[*n].id)).collect();
    (
        places(&|id| things.contains(&Thing::Task(id.clone()))),
        places(&|id| serving.has(world, &world.tasks[id])),
    )
}

fn health(health: Health) -> TaskChange {
    TaskChange { health: Some(health), checked: true, ..TaskChange::default() }
}

#[test]
fn who_serves_as_its_service_panics_is_told_of() {
    let probe = Some(Some(Probe::Tcp { port: 80 }));
    let wish = HealthWish { probe, panic: Some(50), ..HealthWish::default() };
    let (mut sim, tasks, mut journal) = four(ServiceRequest { health: wish, ..sim::service("web") });
    let mut told = |sim: &Sim| told(sim, &tasks, &mut journal, &Masks::default());
    for task in &tasks {
        sim.set(if task.slot < 3 { "n1" } else { "n2" }, &task.id, health(Health::Healthy)).unwrap();
    }
    told(&sim);
    sim.set("n1", &tasks[0].id, health(Health::Unhealthy)).unwrap();
    assert_eq!(told(&sim), (vec![0], vec![1, 2, 3]));
    sim.set("n1", &tasks[1].id, health(Health::Unhealthy)).unwrap();
    assert_eq!(told(&sim), (vec![1], vec![2, 3]));
    sim.set("n2", &tasks[2].id, health(Health::Unhealthy)).unwrap();
    assert_eq!(told(&sim), (vec![0, 1, 2], vec![0, 1, 2, 3]));
    sim.set("n2", &tasks[2].id, health(Health::Healthy)).unwrap();
    assert_eq!(told(&sim), (vec![0, 1, 2], vec![2, 3]));
}

#[test]
fn who_serves_as_too_many_are_ejected_is_told_of() {
    let (mut sim, tasks, mut journal) = four(ServiceRequest { passive_health: true, ..sim::service("web") });
    let mut told = |sim: &Sim| told(sim, &tasks, &mut journal, &Masks::default());
    let eject = |sim: &mut Sim, place: usize, ejected| {
        let node = if place < 2 { "n1" } else { "n2" };
        let change = TaskChange { ejected: Some(ejected), ..TaskChange::default() };
        sim.set(node, &tasks[place].id, change).unwrap();
    };
    let at = |since| Some(Ejected { since, row: 1, why: Sickness::Refuses });
    eject(&mut sim, 0, at(3));
    eject(&mut sim, 1, at(2));
    assert_eq!(told(&sim), (vec![0, 1], vec![2, 3]));
    // Two of four at most, those first that were sick first.
    eject(&mut sim, 2, at(1));
    assert_eq!(told(&sim), (vec![0, 2], vec![0, 3]));
    eject(&mut sim, 2, None);
    assert_eq!(told(&sim), (vec![0, 2], vec![2, 3]));
}

#[test]
fn nodes_that_are_not_heard_are_told_of_with_their_tasks() {
    let (mut sim, tasks, mut journal) = four(sim::service("web"));
    let dead = |nodes: &[&str]| -> Masks {
        let ids = nodes.iter().map(|name| (sim.world().node(name).unwrap().id.clone(), Verdict::Dead));
        Masks::from(ids.collect::<BTreeMap<_, _>>())
    };
    let (none, n2, both) = (dead(&[]), dead(&["n2"]), dead(&["n1", "n2"]));
    let rev = sim.world().rev;
    assert_eq!(told(&sim, &tasks, &mut journal, &n2), (vec![2, 3], vec![0, 1]));
    assert!(since(&journal, rev).unwrap().contains(&Thing::Node(tasks[2].node.clone())));
    assert!(!journal.covers(rev), "who was heard before it began it does not know");
    assert_eq!(
        [0, 2].map(|place| why_not_here(sim.world(), &n2, &tasks[place]).contains("n2 does not answer")),
        [false, true]
    );
    // Where nobody is heard, all are tried.
    assert_eq!(told(&sim, &tasks, &mut journal, &both), (vec![2, 3], vec![0, 1, 2, 3]));
    assert_eq!(told(&sim, &tasks, &mut journal, &n2), (vec![2, 3], vec![0, 1]));
    let failed = TaskChange { state: Some(TaskState::Failed), ..TaskChange::default() };
    sim.set("n1", &tasks[0].id, failed.clone()).unwrap();
    assert_eq!(told(&sim, &tasks, &mut journal, &n2), (vec![0], vec![1]));
    sim.set("n1", &tasks[1].id, failed).unwrap();
    assert_eq!(told(&sim, &tasks, &mut journal, &n2), (vec![1, 2, 3], vec![2, 3]));
    assert!(journal.covers(sim.world().rev));
    assert_eq!(told(&sim, &tasks, &mut journal, &none), (vec![], vec![2, 3]));
}

#[test]
fn a_task_of_which_its_node_says_more_than_its_record_is_told_of() {
    let (sim, tasks, mut journal) = four(sim::service("web"));
    let (none, mut sick) = (Masks::default(), Masks::default());
    sick.tasks.insert(tasks[1].id.clone(), Notice::Sick);
    assert_eq!(told(&sim, &tasks, &mut journal, &sick), (vec![1], vec![0, 2, 3]));
    assert!(why_not_here(sim.world(), &sick, &tasks[1]).contains("fails its health check"));
    assert_eq!(told(&sim, &tasks, &mut journal, &sick), (vec![], vec![0, 2, 3]));
    assert_eq!(told(&sim, &tasks, &mut journal, &none), (vec![1], vec![0, 1, 2, 3]));
}
