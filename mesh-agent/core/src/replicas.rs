//! **Decision.** Which node starts which task of a service whose command the mesh runs, and which tasks go.
//!
//! Every node works out the same from the same snapshot and starts what falls to it. Copies may differ for a moment:
//! a slot is claimed by the transaction that registers its task, so nothing runs twice, and one task too many is
//! told to stop once it is seen. Who tells tasks to stop is one node ([`conduct`]).

mod rollout;
mod shortage;

pub use rollout::conduct;
pub use shortage::{Shortage, shortages};

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Availability, NodeId, Program, Service, ServiceId, Snapshot, Task, UpdateOrder, fnv64};
use crate::records;

/// A task to start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    /// For whom.
    pub service: ServiceId,
    /// As which of its tasks.
    pub slot: u32,
    /// Which version of its program.
    pub version: u64,
}

/// What a node is to start now. `lost` are nodes that have shown no life for so long that others take over.
pub fn to_start(world: &Snapshot, node: &NodeId, lost: &BTreeSet<NodeId>) -> Vec<Start> {
    let mut all = Vec::new();
    for service in world.services.values() {
        let Some(program) = &service.program else { continue };
        let placed = place(world, service, program, lost).into_iter().filter(|(_, on)| *on == node);
        all.extend(placed.map(|(slot, _)| Start {
            service: service.id.clone(),
            slot,
            version: program.version,
        }));
    }
    all
}

/// Nodes that are lost: silent ones, as long as most nodes are heard. Where most are silent it is the store or this
/// node that has a problem.
pub fn lost(world: &Snapshot, silent: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let lost: BTreeSet<_> =
        silent.iter().filter(|id| world.nodes.contains_key(*id) && !world.live.contains_key(*id)).collect();
    if lost.len() * 2 < world.nodes.len() { lost.into_iter().cloned().collect() } else { BTreeSet::new() }
}

/// The slots that are to be filled, each with its node.
fn place<'a>(
    world: &'a Snapshot,
    service: &'a Service,
    program: &Program,
    lost: &BTreeSet<NodeId>,
) -> Vec<(u32, &'a NodeId)> {
    let crew = Crew::of(world, service, program, lost);
    let free = (1..).filter(|slot| !world.claims.contains_key(&*records::slot_claim(&service.id, *slot)));
    let mut spread = Spread::of(world, service, &crew);
    let slots = free.take(crew.missing(program));
    slots.map_while(|slot| spread.next().map(|node| (slot, node))).collect()
}

/// The tasks that the mesh started for a service and that have not ended.
#[derive(Debug)]
struct Crew<'a> {
    /// Those that are to stay, of the present version.
    current: Vec<&'a Task>,
    /// Those that are to stay until they are replaced.
    outdated: Vec<&'a Task>,
    /// How many were told to stop and still run on nodes that take part.
    leaving: usize,
    /// Those on nodes that are drained, which nobody has told to stop yet: they may serve until others do.
    stranded: Vec<&'a Task>,
}

impl<'a> Crew<'a> {
    fn of(world: &'a Snapshot, service: &'a Service, program: &Program, lost: &BTreeSet<NodeId>) -> Self {
        let mut crew = Self { current: Vec::new(), outdated: Vec::new(), leaving: 0, stranded: Vec::new() };
        for task in world.tasks_of(&service.id).map(AsRef::as_ref) {
            let Some(version) = task.program.filter(|_| !task.state.is_terminal()) else { continue };
            let stopping = world.stops.contains_key(&task.id);
            if lost.contains(&task.node) || !world.nodes.contains_key(&task.node) {
                continue;
            }
            if world.availability(&task.node) == Availability::Drain {
                if !stopping {
                    crew.stranded.push(task);
                }
            } else if stopping {
                crew.leaving += 1;
            } else if version == program.version {
                crew.current.push(task);
            } else {
                crew.outdated.push(task);
            }
        }
        crew
    }

    /// Those that are to stay for now.
    fn len(&self) -> usize {
        self.current.len() + self.outdated.len()
    }

    /// How many there may be more than wanted, so that new ones come before old ones go.
    fn surge(&self, program: &Program) -> usize {
        let surges = program.update.order == UpdateOrder::StartFirst && !program.is_paused();
        if surges && !self.outdated.is_empty() { program.parallelism() } else { 0 }
    }

    /// How many are to be started.
    fn missing(&self, program: &Program) -> usize {
        let wanted = program.replicas as usize;
        let there = match program.update.order {
            UpdateOrder::StopFirst => self.len() + self.leaving,
            UpdateOrder::StartFirst => self.len(),
        };
        let room = (wanted + self.surge(program)).saturating_sub(there);
        room.min(wanted.saturating_sub(self.current.len()))
    }
}

/// Hands out nodes: always the one with the fewest tasks of the service.
#[derive(Debug)]
struct Spread<'a> {
    /// Of the present version, of any, of all services; what is left is decided by a hash.
    load: BTreeMap<&'a NodeId, (usize, usize, usize, u64)>,
}

impl<'a> Spread<'a> {
    fn of(world: &'a Snapshot, service: &Service, crew: &Crew<'_>) -> Self {
        let takes =
            |id: &&NodeId| world.availability(id) == Availability::Active && world.live.contains_key(*id);
        let count = |tasks: &[&Task], id: &NodeId| tasks.iter().filter(|task| task.node == *id).count();
        let load = world.nodes.keys().filter(takes).map(|id| {
            let (current, outdated) = (count(&crew.current, id), count(&crew.outdated, id));
            let any = world.tasks.on(id).len();
            let hash = fnv64(format!("{}/{id}", service.id).as_bytes());
            (id, (current, current + outdated, any, hash))
        });
        Self { load: load.collect() }
    }

    /// Whether any node takes tasks.
    fn has_room(&self) -> bool {
        !self.load.is_empty()
    }

    fn next(&mut self) -> Option<&'a NodeId> {
        let (id, load) = self.load.iter_mut().min_by_key(|(_, load)| **load)?;
        (load.0, load.1, load.2) = (load.0 + 1, load.1 + 1, load.2 + 1);
        Some(id)
    }
}

/// Those who go first when there are too many: such that do not serve, outdated ones, those of the fullest node, the
/// youngest.
fn superfluous<'a>(world: &Snapshot, program: &Program, crew: &Crew<'a>, count: usize) -> Vec<&'a Task> {
    let mut left: Vec<&Task> = crew.current.iter().chain(&crew.outdated).copied().collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let on_node = |task: &Task| left.iter().filter(|other| other.node == task.node).count();
        let first = left.iter().enumerate().min_by_key(|(_, task)| {
            (
                world.in_balance(task),
                task.program == Some(program.version),
                Reverse(on_node(task)),
                Reverse(task.slot),
            )
        });
        let Some((place, _)) = first else { break };
        chosen.push(left.remove(place));
    }
    chosen
}
