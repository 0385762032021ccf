//! What two worlds say of what happened between them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Kind};
use crate::journal::Thing;
use crate::liveness::Verdict;
use crate::model::{Availability, Health, Node, NodeId, Program, Service, Snapshot, Task, TaskId, TaskState};

/// A reason that is longer is cut: it may be a program's.
const LONGEST_REASON: usize = 256;

/// What happened to things that changed between two worlds: what others need comes first, and goes last.
pub fn between(old: &Snapshot, new: &Snapshot, things: &BTreeSet<Thing>) -> Vec<Event> {
    let mut events = Vec::new();
    for thing in things {
        match thing {
            Thing::Network(id) => {
                let both = (old.networks.get(id), new.networks.get(id));
                let about = |action, network: &crate::model::Network| {
                    Event::of(Kind::Network, action, &network.id, &network.name)
                };
                match both {
                    (None, Some(network)) => events.push(about("create", network)),
                    (Some(network), None) => events.push(about("remove", network)),
                    (Some(old), Some(new)) if old != new => events.push(about("update", new)),
                    _ => {}
                }
            }
            Thing::Service(id) => match (old.services.get(id), new.services.get(id)) {
                (None, Some(service)) => events.push(of_service("create", service)),
                (Some(service), None) => events.push(of_service("remove", service)),
                (Some(old), Some(new)) if old != new => events.push(updated(old, new)),
                _ => {}
            },
            Thing::Task(id) => task(old, new, id, &mut events),
            Thing::Node(id) => node(old, new, id, &mut events),
        }
    }
    events.extend(records(old, new));
    let rank = |event: &Event| {
        let order = match event.kind {
            Kind::Agent => 0,
            Kind::Node => 1,
            Kind::Network => 2,
            Kind::Service => 3,
            Kind::Task => 4,
            Kind::Record => 5,
        };
        if event.action == "remove" { 10 - order } else { order }
    };
    events.sort_by_key(rank);
    events
}

/// Records that are set aside, each time anew that they make no sense, and those that are no longer.
fn records<'a>(old: &'a Snapshot, new: &'a Snapshot) -> impl Iterator<Item = Event> + 'a {
    let about = |action, key: &String| Event::of(Kind::Record, action, key, key);
    let aside = new
        .poison
        .iter()
        .filter(|(key, why)| old.poison.get(*key) != Some(*why) || old.rev_of(key) != new.rev_of(key));
    let aside = aside.map(move |(key, why)| about("set aside", key).because(why));
    let again = old.poison.keys().filter(|key| !new.poison.contains_key(*key));
    aside.chain(again.map(move |key| {
        let there = new.rev_of(key) != crate::kv::Rev(0);
        about(if there { "in force" } else { "remove" }, key)
    }))
}

/// Whom a node hears no more, and whom it hears again. What managers agree on and who leaves is in the records.
pub fn heard(
    world: &Snapshot,
    by: &NodeId,
    old: &BTreeMap<NodeId, Verdict>,
    new: &BTreeMap<NodeId, Verdict>,
) -> Vec<Event> {
    let mut events = Vec::new();
    let ids: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for id in ids {
        let Some(node) = world.nodes.get(id) else { continue };
        let reason = |verdict: Option<&Verdict>| verdict.copied().and_then(silence);
        let (was, is) = (reason(old.get(id)), reason(new.get(id)));
        let event = match (was, is) {
            (was, Some(why)) if was != is => of_node("down", node).because(why),
            // It is down for all, or leaves: it is not heard again.
            (Some(_), None) if !new.contains_key(id) => of_node("up", node).because("it answers again"),
            _ => continue,
        };
        events.push(event.with("by", node_name(world, by)));
    }
    events
}

/// Why a node gets no new flows, where that is this node's own finding.
fn silence(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Dead => Some("it does not answer"),
        Verdict::PathDown => Some("it answers other nodes only"),
        Verdict::TunnelDown => Some("it does not answer through the tunnel"),
        Verdict::Rebooted => Some("it was started anew, and its agent is not there yet"),
        Verdict::Unheard | Verdict::Up | Verdict::Suspect | Verdict::AgreedDown | Verdict::Leaving => None,
    }
}

impl Event {
    fn of(kind: Kind, action: &'static str, id: &impl ToString, name: &impl ToString) -> Self {
        Self { kind, action, id: id.to_string(), attributes: BTreeMap::from([("name", name.to_string())]) }
    }

    /// With an attribute more, unless it is empty.
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.attributes.insert(name, value);
        }
        self
    }

    fn because(self, reason: &str) -> Self {
        let cut: String = reason.chars().take(LONGEST_REASON).collect();
        let end = if cut.len() < reason.len() { "…" } else { "" };
        self.with("reason", format!("{cut}{end}"))
    }

    /// From what to what.
    fn moved(self, names: [&'static str; 2], old: &impl ToString, new: &impl ToString) -> Self {
        let (old, new) = (old.to_string(), new.to_string());
        if old == new { self } else { self.with(names[0], old).with(names[1], new) }
    }
}

fn of_service(action: &'static str, service: &Service) -> Event {
    Event::of(Kind::Service, action, &service.id, &service.name)
}

/// How a service is another one, with the attributes that Docker has of it.
fn updated(old: &Service, new: &Service) -> Event {
    let same = |program: &Option<Program>| {
        program.as_ref().map(|program| (program.version, program.update, program.grace))
    };
    // Each field is to be told of, those of later versions, too.
    let Service {
        id: _,
        name,
        mode,
        networks,
        ports,
        balancing,
        affinity,
        locality,
        drain_timeout,
        return_path,
        idle_timeout,
        slow_start,
        health,
        passive_health,
        discovery,
        program,
        labels,
        version: _,
        created: _,
        updated: _,
    } = old;
    let choice = (balancing, affinity, locality) != (&new.balancing, &new.affinity, &new.locality);
    let parts = [
        ("name", *name != new.name),
        ("mode", *mode != new.mode),
        ("networks", *networks != new.networks),
        ("ports", *ports != new.ports),
        ("balancing", choice || *slow_start != new.slow_start),
        ("flows", (*idle_timeout, *return_path) != (new.idle_timeout, new.return_path)),
        ("drain", *drain_timeout != new.drain_timeout),
        ("health", (health, *passive_health) != (&new.health, new.passive_health)),
        ("dns", *discovery != new.discovery),
        ("program", same(program) != same(&new.program)),
        ("labels", *labels != new.labels),
    ];
    let changed: Vec<_> = parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    let replicas =
        |service: &Service| service.program.as_ref().map_or(String::new(), |p| p.replicas.to_string());
    let rollout = |service: &Service| service.program.as_ref().and_then(|program| program.rollout.clone());
    let state =
        |service: &Service| rollout(service).map_or(String::new(), |rollout| rollout.state.to_string());
    let event = of_service("update", new)
        .with("changed", changed.join(","))
        .moved(["replicas.old", "replicas.new"], &replicas(old), &replicas(new))
        .moved(["updatestate.old", "updatestate.new"], &state(old), &state(new));
    match rollout(new) {
        Some(now) if rollout(old).as_ref() != Some(&now) => event.because(&now.message),
        _ => event,
    }
}

fn of_node(action: &'static str, node: &Node) -> Event {
    Event::of(Kind::Node, action, &node.id, &node.name)
}

fn node_name(world: &Snapshot, id: &NodeId) -> String {
    world.nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.to_string())
}

fn node(old: &Snapshot, new: &Snapshot, id: &NodeId, events: &mut Vec<Event>) {
    let (was, is) = match (old.nodes.get(id), new.nodes.get(id)) {
        (None, None) => return,
        (None, Some(node)) => return events.push(of_node("create", node)),
        (Some(node), None) => return events.push(of_node("remove", node)),
        (Some(was), Some(is)) => (was, is),
    };
    if is.left && !was.left {
        events.push(of_node("leave", is));
    }
    if is.epoch != was.epoch {
        let why = if is.boot == was.boot { "its agent was started" } else { "its machine was started" };
        events.push(of_node("start", is).because(why).moved(
            ["version.old", "version.new"],
            &was.version,
            &is.version,
        ));
    }
    let (from, to) = (old.availability(id), new.availability(id));
    if from != to {
        let action = match to {
            Availability::Active => "active",
            Availability::Pause => "pause",
            Availability::Drain => "drain",
        };
        events.push(of_node(action, is).moved(["availability.old", "availability.new"], &from, &to));
    }
    let down = |world: &Snapshot| world.down_nodes().any(|down| down == id);
    match (down(old), down(new)) {
        (false, true) => {
            let by =
                new.downs.get(id).map(|down| down.by.iter().map(|id| node_name(new, id)).collect::<Vec<_>>());
            let event = of_node("down", is).because("managers agree that it is dead");
            events.push(event.with("by", by.unwrap_or_default().join(",")));
        }
        (true, false) => events.push(of_node("up", is).because("managers agree that it is alive")),
        (false, false) | (true, true) => {}
    }
    let labels = |world: &Snapshot| world.specs.get(id).map(|spec| spec.labels.clone()).unwrap_or_default();
    let parts = [
        ("name", was.name != is.name),
        ("address", (was.address, was.vxlan_port) != (is.address, is.vxlan_port)),
        ("mtu", was.uplink_mtu != is.uplink_mtu),
        ("labels", labels(old) != labels(new)),
        ("role", old.is_manager(id) != new.is_manager(id)),
    ];
    let changed: Vec<_> = parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    if !changed.is_empty() {
        events.push(of_node("update", is).with("changed", changed.join(",")));
    }
}

fn of_task(world: &Snapshot, action: &'static str, task: &Task) -> Event {
    let service = task.service.as_ref().and_then(|id| world.services.get(id));
    Event::of(Kind::Task, action, &task.id, &world.task_name(task))
        .with("service", service.map_or(String::new(), |service| service.name.to_string()))
        .with("node", node_name(world, &task.node))
}

fn task(old: &Snapshot, new: &Snapshot, id: &TaskId, events: &mut Vec<Event>) {
    let of = |action, task: &Task| of_task(new, action, task);
    let (was, is) = match (old.tasks.get(id), new.tasks.get(id)) {
        (None, None) => return,
        (None, Some(task)) => {
            events.push(of("create", task));
            if task.state == TaskState::Running {
                events.push(of("start", task));
            }
            return;
        }
        // Its service may be gone by now.
        (Some(task), None) => return events.push(of_task(old, "remove", task)),
        (Some(was), Some(is)) => (was, is),
    };
    if !old.stops.contains_key(id) && new.stops.contains_key(id) {
        events.push(of("stop", is).because("it was asked to stop"));
    }
    let drained = |world: &Snapshot| {
        world.task_specs.get(id).is_some_and(|spec| spec.availability == Availability::Drain)
    };
    match (drained(old), drained(new)) {
        (false, true) => events.push(of("drain", is)),
        (true, false) => events.push(of("active", is)),
        (false, false) | (true, true) => {}
    }
    if is.draining && !was.draining {
        events.push(of("drain", is).because("it leaves"));
    }
    if is.state != was.state {
        events.push(match is.state {
            TaskState::Running => of("start", is),
            state if state.is_terminal() => of("die", is).with("state", word(state)).because(&is.message),
            state => of("update", is).with("state", word(state)),
        });
    }
    if is.health != was.health {
        let action = match is.health {
            Health::None => "health_status: none",
            Health::Starting => "health_status: starting",
            Health::Healthy => "health_status: healthy",
            Health::Unhealthy => "health_status: unhealthy",
        };
        let sick = is.health == Health::Unhealthy;
        events.push(of(action, is).because(if sick { &is.message } else { "" }));
    }
    match (was.ejected, is.ejected) {
        (was, Some(now)) if was.is_none_or(|was| was.since != now.since) => {
            events.push(of("ejected", is).because(now.why.words()));
        }
        (Some(_), None) => events.push(of("let in", is)),
        _ => {}
    }
    let parts = [
        ("weight", was.weight != is.weight),
        ("networks", was.addresses != is.addresses),
        ("dns", was.dns != is.dns),
    ];
    let changed: Vec<_> = parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect();
    if !changed.is_empty() {
        events.push(of("update", is).with("changed", changed.join(",")));
    }
}

fn word(state: TaskState) -> String {
    state.to_string().to_lowercase()
}
