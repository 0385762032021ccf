//! What happened, as people are told of it.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::change::{self, NetworkRequest, TaskChange};
use mesh_core::events::{self, Event, Recent};
use mesh_core::journal::Journal;
use mesh_core::liveness::{Masks, Verdict};
use mesh_core::model::{Availability, Ejected, Health, ReturnPath, Sickness, TaskState};
use sim::Sim;

/// A mesh and what somebody notes of it.
struct Witness {
    sim: Sim,
    journal: Journal,
    known: mesh_core::model::Snapshot,
}

impl Witness {
    fn of(sim: Sim) -> Self {
        let mut journal = Journal::default();
        journal.note(sim.world(), &Masks::default());
        let known = sim.world().clone();
        Self { sim, journal, known }
    }

    /// What happened since, a line each.
    fn told(&mut self) -> Vec<String> {
        let things = self.journal.note(self.sim.world(), &Masks::default());
        let events = events::between(&self.known, self.sim.world(), &things);
        self.known = self.sim.world().clone();
        events.iter().map(line).collect()
    }
}

fn line(event: &Event) -> String {
    let attributes: Vec<_> = event.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{} {} ({})", event.kind, event.action, attributes.join(", "))
}

fn app() -> NetworkRequest {
    NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() }
}

fn two_nodes() -> Witness {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    sim.change(|world, fresh| change::create_network(world, app(), fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    Witness::of(sim)
}

#[test]
fn the_life_of_a_task() {
    let mut mesh = two_nodes();
    assert_eq!(mesh.told(), [""; 0], "what was there when it began is no news");
    let task = mesh.sim.task("web", "n2").unwrap();
    let of = |action: &str, more: &str| format!("task {action} (name=web.1, node=n2{more}, service=web)");
    assert_eq!(mesh.told(), [of("create", ""), of("start", "")]);
    let set = |mesh: &mut Witness, change: TaskChange| {
        mesh.sim.set("n2", &task.id, change).unwrap();
        mesh.told()
    };
    let sick = TaskChange {
        health: Some(Health::Unhealthy),
        message: Some("health check tcp:80: refused".to_owned()),
        ..TaskChange::default()
    };
    assert_eq!(
        set(&mut mesh, sick),
        [of("health_status: unhealthy", ", reason=health check tcp:80: refused")]
    );
    let well = TaskChange { health: Some(Health::Healthy), ..TaskChange::default() };
    assert_eq!(set(&mut mesh, well.clone()), [of("health_status: healthy", "")]);
    assert_eq!(set(&mut mesh, well), [""; 0]);
    for since in [1, 2] {
        let ejected = Some(Some(Ejected { since, row: 1, why: Sickness::Refuses }));
        let ejected = TaskChange { ejected, ..TaskChange::default() };
        assert_eq!(set(&mut mesh, ejected), [of("ejected", ", reason=refuses connections")], "{since}");
    }
    let back = TaskChange { ejected: Some(None), ..TaskChange::default() };
    assert_eq!(set(&mut mesh, back), [of("let in", "")]);
    let heavy = TaskChange { weight: Some(3), ..TaskChange::default() };
    assert_eq!(set(&mut mesh, heavy), ["task update (changed=weight, name=web.1, node=n2, service=web)"]);
    for (to, action) in [(Availability::Drain, "drain"), (Availability::Active, "active")] {
        mesh.sim.change(|world, fresh| change::set_task_availability(world, "web.1", to, fresh)).unwrap();
        assert_eq!(mesh.told(), [of(action, "")]);
    }
    mesh.sim.change(|world, _| change::stop_task(world, "web.1")).unwrap();
    assert_eq!(mesh.told(), [of("stop", ", reason=it was asked to stop")]);
    let leaving = TaskChange { draining: Some(true), ..TaskChange::default() };
    assert_eq!(set(&mut mesh, leaving), [of("drain", ", reason=it leaves")]);
    let ended = TaskChange {
        state: Some(TaskState::Failed),
        message: Some("ö".repeat(300)),
        ..TaskChange::default()
    };
    let told = set(&mut mesh, ended);
    let reason = format!(", reason={}…", "ö".repeat(256));
    assert_eq!(told, [format!("task die (name=web.1, node=n2{reason}, service=web, state=failed)")]);
    let me = mesh.sim.me("n2");
    mesh.sim.own_change(&me.id, |world, _| change::forget_task(world, &me, &task.id)).unwrap();
    assert_eq!(mesh.told(), [of("remove", "")]);
}

#[test]
fn what_is_needed_comes_first_and_goes_last() {
    let mut mesh = Witness::of(Sim::new());
    mesh.sim.join("n1", "192.0.2.1").unwrap();
    mesh.sim.change(|world, fresh| change::create_network(world, app(), fresh)).unwrap();
    mesh.sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    mesh.sim.task("web", "n1").unwrap();
    let actions = |told: Vec<String>| -> Vec<String> {
        told.iter().map(|line| line.split(" (").next().unwrap().to_owned()).collect()
    };
    let made = ["node create", "network create", "service create", "task create", "task start"];
    assert_eq!(actions(mesh.told()), made);
    mesh.sim.change(|world, _| change::remove_node(world, "n1", true)).unwrap();
    mesh.sim.change(|world, fresh| change::remove_service(world, "web", fresh)).unwrap();
    mesh.sim.change(|world, fresh| change::remove_network(world, "app", fresh)).unwrap();
    let gone = ["task remove", "service remove", "network remove", "node remove"];
    let told = mesh.told();
    assert_eq!(told[0], "task remove (name=web.1, node=n1, service=web)", "its service is gone by now");
    assert_eq!(actions(told), gone);
}

#[test]
fn the_life_of_a_node() {
    let mut mesh = two_nodes();
    let task = mesh.sim.task("web", "n1").unwrap();
    mesh.told();
    for (to, old, action) in
        [(Availability::Drain, "active", "drain"), (Availability::Pause, "drain", "pause")]
    {
        mesh.sim.change(|world, fresh| change::set_availability(world, "n1", to, fresh)).unwrap();
        let told = format!("node {action} (availability.new={action}, availability.old={old}, name=n1)");
        assert_eq!(mesh.told(), [told], "and nothing of its tasks");
    }
    let id = task.node;
    mesh.sim.change(|world, _| change::depart(world, &id)).unwrap();
    assert_eq!(mesh.told(), ["node leave (name=n1)"]);
    mesh.sim.join("n1", "192.0.2.1").unwrap();
    assert_eq!(mesh.told(), ["node start (name=n1, reason=its agent was started)"]);
    mesh.sim.join("n3", "192.0.2.3").unwrap();
    assert_eq!(mesh.told(), ["node create (name=n3)"]);
}

#[test]
fn what_a_service_became() {
    let mut mesh = two_nodes();
    let update = change::ServiceUpdate {
        label_add: BTreeMap::from([("tier".to_owned(), "vörne".to_owned())]),
        ..change::ServiceUpdate::default()
    };
    mesh.sim.change(|world, fresh| change::update_service(world, "web", update, fresh)).unwrap();
    assert_eq!(mesh.told(), ["service update (changed=labels, name=web)"]);
    let new = Duration::from_secs(20);
    let same = change::ServiceUpdate::default;
    for (what, update) in [
        ("drain", change::ServiceUpdate { drain_timeout: Some(new), ..same() }),
        ("flows", change::ServiceUpdate { idle_timeout: Some(Some(new)), ..same() }),
        ("flows", change::ServiceUpdate { return_path: Some(ReturnPath::Snat), ..same() }),
        ("balancing", change::ServiceUpdate { slow_start: Some(new), ..same() }),
    ] {
        mesh.sim.change(|world, fresh| change::update_service(world, "web", update, fresh)).unwrap();
        assert_eq!(mesh.told(), [format!("service update (changed={what}, name=web)")]);
    }
    // A task more is no other service.
    mesh.sim.task("web", "n1").unwrap();
    assert_eq!(mesh.told().len(), 2);
}

#[test]
fn whom_this_node_hears_is_its_own_finding() {
    let mesh = two_nodes();
    let (world, n1, n2) = (mesh.sim.world(), mesh.sim.me("n1").id, mesh.sim.me("n2").id);
    let none = BTreeMap::new();
    let is = |verdict| BTreeMap::from([(n2.clone(), verdict)]);
    let told = |old: &BTreeMap<_, _>, new: &BTreeMap<_, _>| -> Vec<String> {
        events::heard(world, &n1, old, new).iter().map(line).collect()
    };
    assert_eq!(told(&none, &is(Verdict::Dead)), ["node down (by=n1, name=n2, reason=it does not answer)"]);
    let path = "node down (by=n1, name=n2, reason=it answers other nodes only)";
    assert_eq!(told(&is(Verdict::Dead), &is(Verdict::PathDown)), [path]);
    assert_eq!(told(&is(Verdict::Dead), &is(Verdict::Dead)), [""; 0]);
    assert_eq!(told(&is(Verdict::PathDown), &none), ["node up (by=n1, name=n2, reason=it answers again)"]);
    // These are in the records, for all.
    for verdict in [Verdict::AgreedDown, Verdict::Leaving] {
        assert_eq!(told(&none, &is(verdict)), [""; 0]);
        assert_eq!(told(&is(Verdict::Dead), &is(verdict)), [""; 0], "it is not heard again");
        assert_eq!(told(&is(verdict), &none), [""; 0]);
    }
}

#[test]
fn so_many_are_remembered_and_no_more() {
    let mut mesh = two_nodes();
    let things = mesh.journal.note(mesh.sim.world(), &Masks::default());
    assert!(things.is_empty());
    mesh.sim.task("web", "n1").unwrap();
    let things = mesh.journal.note(mesh.sim.world(), &Masks::default());
    let two = events::between(&mesh.known, mesh.sim.world(), &things);
    assert_eq!(two.len(), 2);
    let mut recent = Recent::default();
    for at in 0..Recent::ROOM as u64 / 2 {
        recent.note(at * 10, two.clone());
    }
    assert_eq!((recent.oldest(), recent.next(), recent.forgot(0)), (0, Recent::ROOM as u64, false));
    recent.note(1_000_000, two.clone());
    assert_eq!((recent.oldest(), recent.next()), (2, Recent::ROOM as u64 + 2));
    assert!(recent.forgot(1) && !recent.forgot(2), "the two of the first moment are forgotten");
    let (missed, left) = recent.from(1);
    let left: Vec<_> = left.map(|dated| dated.at).collect();
    assert_eq!((missed, left.len(), left[0]), (1, Recent::ROOM, 10));
    assert_eq!(left[left.len() - 2..], [1_000_000, 1_000_001], "a moment names one event");
    let (missed, left) = recent.from(recent.next());
    assert_eq!((missed, left.count()), (0, 0));
}
