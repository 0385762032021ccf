//! What changed since a revision.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeSet;

use mesh_core::change::{self, NetworkRequest, TaskChange};
use mesh_core::journal::{Journal, Thing};
use mesh_core::kv::Rev;
use mesh_core::model::{Availability, TaskState};
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
    journal.note(sim.world());
    let begin = sim.world().rev;
    assert_eq!(since(&journal, begin), Some(BTreeSet::new()));
    assert_eq!(since(&journal, Rev(begin.0 - 1)), None, "that was before it began");
    assert_eq!(since(&journal, Rev(begin.0 + 1)), None, "that is another history");

    let task = sim.task("web", "n1").unwrap();
    journal.note(sim.world());
    let added = since(&journal, begin).unwrap();
    let service = sim.world().services.keys().next().unwrap().clone();
    assert!(
        added.contains(&Thing::Task(task.id.clone())) && added.contains(&Thing::Service(service.clone()))
    );
    assert!(!added.iter().any(|thing| matches!(thing, Thing::Network(_))));

    let before = sim.world().rev;
    let ended = TaskChange { state: Some(TaskState::Failed), ..TaskChange::default() };
    sim.set("n1", &task.id, ended).unwrap();
    journal.note(sim.world());
    let expected = BTreeSet::from([Thing::Service(service), Thing::Task(task.id)]);
    assert_eq!(since(&journal, before), Some(expected));
    assert_eq!(since(&journal, sim.world().rev), Some(BTreeSet::new()));
}

#[test]
fn a_node_that_is_drained_changes_its_tasks() {
    let mut sim = two_nodes();
    let (there, elsewhere) = (sim.task("web", "n1").unwrap(), sim.task("web", "n2").unwrap());
    let mut journal = Journal::default();
    journal.note(sim.world());
    let begin = sim.world().rev;
    let to = Availability::Drain;
    sim.change(|world, fresh| change::set_availability(world, "n1", to, fresh)).unwrap();
    journal.note(sim.world());
    let changed = since(&journal, begin).unwrap();
    assert!(changed.contains(&Thing::Node(there.node.clone())) && changed.contains(&Thing::Task(there.id)));
    assert!(!changed.contains(&Thing::Task(elsewhere.id)) && !changed.contains(&Thing::Node(elsewhere.node)));
}

#[test]
fn what_is_long_ago_is_forgotten_revision_by_revision() {
    let mut sim = two_nodes();
    let mut journal = Journal::default();
    journal.note(sim.world());
    let begin = sim.world().rev;
    let mut revisions = Vec::new();
    for number in 0..=Journal::ROOM {
        let to = if number % 2 == 0 { Availability::Pause } else { Availability::Active };
        sim.change(|world, fresh| change::set_availability(world, "n1", to, fresh)).unwrap();
        journal.note(sim.world());
        revisions.push(sim.world().rev);
    }
    assert_eq!(since(&journal, begin), None);
    assert!(since(&journal, revisions[0]).is_some_and(|things| things.len() == 1));
}
