//! **Decision.** Which tasks are sick, by what they make of connections that they are given anyway. Nobody is asked, and
//! counts, times and the record are handed in.
//!
//! A task that refuses what comes, or says nothing, gets no new flows for a while, and is tried again then. One answer
//! shows that it lives. How many may be left out at once is in [`Turnout`](crate::model::Turnout).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    Ejected, NodeId, Probe, Protocol, Service, Sickness, Snapshot, Task, TaskId, TaskState, Timestamp, Vni,
};

/// So many that were refused, or not answered, and none that was.
const ENOUGH: u64 = 3;
/// A kernel takes a connection up at once, whatever the program does; after this it will not.
const SILENCE: Duration = Duration::from_millis(550);
/// What is longer ago than this says nothing of now.
const WINDOW: Duration = Duration::from_secs(10);
/// How long a task is left out the first time; the second time in a row twice as long, and so on.
const TURN: Duration = Duration::from_secs(5);
/// No longer than so many times.
const TURNS: u32 = 12;
/// How long a task is left out the first time that is young and has answered nobody yet: it may only begin to listen. The
/// second time in a row twice as long, and so on, up to [`TURN`].
const YOUNG_TURN: Duration = Duration::from_millis(500);
/// Until when a task is young.
const YOUTH: Duration = Duration::from_secs(60);
/// Who was not found sick for so long is as new.
const FORGIVEN: Duration = Duration::from_secs(60);

/// A port where a task can be expected to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The network of the address.
    pub vni: Vni,
    /// The task's.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What tasks of a node made of connections, each since anything is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// First packets that were given to it.
    pub begun: u64,
    /// Those that it took up.
    pub answered: u64,
    /// Those that it refused.
    pub refused: u64,
    /// Datagrams that it refused.
    pub unreachable: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            begun: self.begun.wrapping_sub(before.begun),
            answered: self.answered.wrapping_sub(before.answered),
            refused: self.refused.wrapping_sub(before.refused),
            unreachable: self.unreachable.wrapping_sub(before.unreachable),
        }
    }
}

/// A node's tasks that are judged, with where they can be expected to answer. Nowhere: what is recorded of one ends.
pub fn judged(world: &Snapshot, node: &NodeId) -> BTreeMap<TaskId, BTreeSet<Place>> {
    // Who leaves refuses in the end, and gets nothing new anyway.
    let stays = |task: &&Arc<Task>| !task.state.is_terminal() && !world.is_leaving(task);
    let own = world.tasks.on(node).iter().filter(stays);
    own.map(|task| (task, places(world, task)))
        .filter(|(task, places)| !places.is_empty() || task.ejected.is_some())
        .map(|(task, places)| (task.id.clone(), places))
        .collect()
}

fn places(world: &Snapshot, task: &Task) -> BTreeSet<Place> {
    let service = task.service.as_ref().and_then(|id| world.services.get(id));
    let Some(service) = service.filter(|service| service.passive_health) else { return BTreeSet::new() };
    if task.state != TaskState::Running {
        return BTreeSet::new();
    }
    let ports = ports(service);
    let mut places = BTreeSet::new();
    for (network, addresses) in &task.addresses {
        let Some(network) = world.networks.get(network) else { continue };
        for address in addresses.addresses() {
            let place = |(port, protocol)| Place { vni: network.vni, address, port, protocol };
            places.extend(ports.iter().copied().map(place));
        }
    }
    places
}

/// Which ports a service's tasks are said to serve. The health check's is one only where no other is known: it may be a
/// part of the program that lives on when the rest does not.
fn ports(service: &Service) -> BTreeSet<(u16, Protocol)> {
    let published = service.ports.iter().map(|port| (port.target, port.protocol));
    let named = service.discovery.port_names.iter().map(|port| (port.port, port.protocol));
    let ports: BTreeSet<_> = published.chain(named).collect();
    match service.health.as_ref().map(|check| &check.probe) {
        Some(Probe::Tcp { port } | Probe::Http { port, .. }) if ports.is_empty() => {
            BTreeSet::from([(*port, Protocol::Tcp)])
        }
        _ => ports,
    }
}

/// What is known of the tasks of a node.
#[derive(Debug, Default)]
pub struct Judge(BTreeMap<TaskId, Course>);

impl Judge {
    /// Looks at what was counted of whom, and says of which tasks something else is to be recorded. Whose counts are not
    /// known is not judged. `now` only ever grows, `clock` is for people.
    pub fn round<'a>(
        &mut self,
        world: &Snapshot,
        counts: impl Iterator<Item = (&'a TaskId, Option<Counts>)>,
        now: Duration,
        clock: Timestamp,
    ) -> Vec<(TaskId, Option<Ejected>)> {
        let mut former = std::mem::take(&mut self.0);
        let mut changes = Vec::new();
        for (id, counts) in counts {
            let Some(task) = world.tasks.get(id) else { continue };
            let ejected = counts.and_then(|counts| {
                let known = former.remove(id);
                let mut course =
                    known.unwrap_or_else(|| Course::new(task.created, task.ejected, counts, now, clock));
                course.read(counts, now, clock);
                let ejected = course.out.map(|(ejected, _)| ejected);
                self.0.insert(id.clone(), course);
                ejected
            });
            if ejected != task.ejected {
                changes.push((id.clone(), ejected));
            }
        }
        changes
    }
}

/// What is known of one task.
#[derive(Debug)]
struct Course {
    last: Counts,
    /// When the task was registered.
    created: Timestamp,
    /// It took something up since it is watched.
    answered: bool,
    /// What came of it since it last answered, and since when.
    tally: Option<(Counts, Duration)>,
    /// How often in a row it was found sick.
    row: u32,
    /// The last time, it was young.
    was_young: bool,
    /// It is left out, until then.
    out: Option<(Ejected, Duration)>,
    /// When it was last let in.
    back: Duration,
}

impl Course {
    /// Of a task that was registered then. What an agent before this one recorded holds for its whole time again.
    fn new(
        created: Timestamp,
        recorded: Option<Ejected>,
        last: Counts,
        now: Duration,
        clock: Timestamp,
    ) -> Self {
        let row = recorded.map_or(0, |ejected| ejected.row);
        let (answered, was_young, tally, out) = (false, false, None, None);
        let mut course = Self { last, created, answered, tally, row, was_young, out, back: now };
        course.was_young = course.is_young(clock);
        course.out = recorded.map(|ejected| (ejected, now + course.turn()));
        course
    }

    /// Whether it may only begin to listen.
    fn is_young(&self, clock: Timestamp) -> bool {
        !self.answered && u128::from(clock.saturating_sub(self.created)) < YOUTH.as_millis()
    }

    /// How long it is left out, by how often in a row it was found sick.
    fn turn(&self) -> Duration {
        if self.was_young {
            YOUNG_TURN.saturating_mul(1 << self.row.saturating_sub(1).min(16)).min(TURN)
        } else {
            TURN * self.row.clamp(1, TURNS)
        }
    }

    fn read(&mut self, counts: Counts, now: Duration, clock: Timestamp) {
        let new = counts.since(self.last);
        self.last = counts;
        self.answered |= new.answered > 0;
        if let Some((_, until)) = self.out {
            if now >= until {
                (self.out, self.tally, self.back) = (None, None, now);
            }
            return;
        }
        if new.answered > 0 {
            self.tally = None;
            return;
        }
        self.tally.take_if(|(_, since)| now - *since > WINDOW);
        if new == Counts::default() && self.tally.is_none() {
            return;
        }
        let (tally, since) = self.tally.get_or_insert((Counts::default(), now));
        tally.begun += new.begun;
        tally.refused += new.refused;
        tally.unreachable += new.unreachable;
        let why = if tally.refused >= ENOUGH {
            Sickness::Refuses
        } else if tally.unreachable >= ENOUGH {
            Sickness::Unreachable
        } else if tally.begun >= ENOUGH && now - *since >= SILENCE {
            Sickness::Silent
        } else {
            return;
        };
        let young = self.is_young(clock);
        // What it was found guilty of in its youth is forgotten with that.
        let anew = self.was_young && !young || now - self.back > FORGIVEN;
        self.row = if anew { 1 } else { self.row.saturating_add(1) };
        self.was_young = young;
        self.out = Some((Ejected { since: clock, row: self.row, why }, now + self.turn()));
    }
}

#[cfg(test)]
mod tests;
