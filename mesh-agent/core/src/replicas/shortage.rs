//! **Decision.** What a service is to have and cannot be given: why, and what cures it.
//!
//! It is worked out by the very decisions that give it: what they refuse now they would refuse again.

use std::collections::BTreeSet;

use super::{Crew, Spread, place};
use crate::change::{self, Fresh, Me, Refusal, TaskRequest};
use crate::model::{
    Availability, Block, NetworkId, NodeId, Origin, Program, Service, Snapshot, Task, TaskState,
};

/// Something that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// To whom: `web.2`, `n3`.
    pub object: String,
    /// Why.
    pub reason: String,
    /// What to do.
    pub cure: String,
}

/// More missing tasks than these are one line.
const EACH: usize = 10;

/// All that a service lacks.
pub fn shortages(world: &Snapshot, service: &Service) -> Vec<Shortage> {
    let mut all = Vec::new();
    if let Some(program) = &service.program {
        replicas(world, service, program, &mut all);
    }
    for task in world.tasks_of(&service.id) {
        all.extend(unattached(world, service, task));
    }
    for attachment in &service.networks {
        all.extend(blocks(world, &attachment.network));
    }
    all
}

/// Tasks that no node takes, or that the one which is to take them cannot have.
fn replicas(world: &Snapshot, service: &Service, program: &Program, all: &mut Vec<Shortage>) {
    let nobody = BTreeSet::new();
    let crew = Crew::of(world, service, program, &nobody);
    let missing = crew.missing(program);
    if missing == 0 {
        return;
    }
    let mut lack = |reason: String, cure: &str| {
        let object = format!("{}.*", service.name);
        all.push(Shortage { object, reason, cure: cure.to_owned() });
    };
    if Spread::of(world, service, &crew).next().is_none() {
        let reason = format!("no suitable node for {missing} tasks ({})", unsuitable(world));
        lack(reason, "let a node take tasks: mesh node update --availability active NODE");
        return;
    }
    for (node, live) in world.live.iter() {
        if let Some(failure) =
            live.failures.get(&service.id).filter(|failure| failure.version == program.version)
        {
            let (node, count) = (name(world, node), failure.count);
            let reason =
                format!("its command does not run on node {node} (tried {count} times): {}", failure.message);
            lack(
                reason,
                "have it run there; each further try comes after a longer pause, of a minute at most",
            );
        }
    }
    for (slot, node) in place(world, service, program, &nobody).into_iter().take(EACH) {
        let Some(me) = world.nodes.get(node).map(|node| Me { id: node.id.clone(), epoch: node.epoch }) else {
            continue;
        };
        let request = TaskRequest {
            service: Some(service.id.to_string()),
            name: None,
            networks: Vec::new(),
            // Nobody is there: it is only asked whether somebody could be.
            origin: Origin::Process { pid: 0, start: 0, supervised: true },
            weight: 1,
            state: TaskState::Preparing,
            dns: Vec::new(),
            packets_only: false,
            slot: Some(slot),
            program: Some(program.version),
        };
        if let Err(Refusal::Exhausted(why)) = change::add_task(world, &me, request, NOW) {
            let reason = format!("node {} cannot take it: {why}", name(world, node));
            all.push(Shortage {
                object: format!("{}.{slot}", service.name),
                reason,
                cure: LARGER.to_owned(),
            });
        }
    }
}

/// Nothing comes of it, so it does not matter when and as what.
const NOW: Fresh = Fresh { id: [0; 16], now: 0 };

const LARGER: &str = "remove what is not used; or make a network with a larger subnet, and have the service join it \
                      (mesh service update --network-add)";

/// Why no node takes tasks.
fn unsuitable(world: &Snapshot) -> String {
    let count = |of: &dyn Fn(&NodeId) -> bool| world.nodes.keys().filter(|id| of(id)).count();
    let parts = [
        (count(&|id| world.availability(id) == Availability::Drain), "drained"),
        (count(&|id| world.availability(id) == Availability::Pause), "paused"),
        (
            count(&|id| world.availability(id) == Availability::Active && !world.live.contains_key(id)),
            "without a sign of life",
        ),
    ];
    let words: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    format!("of {} nodes {}", world.nodes.len(), words.join(", "))
}

/// A task that has no address in a network of its service, and gets none.
fn unattached(world: &Snapshot, service: &Service, task: &Task) -> Option<Shortage> {
    if task.state.is_terminal() || service.networks.iter().all(|a| task.addresses.contains_key(&a.network)) {
        return None;
    }
    let me = Me { id: task.node.clone(), epoch: world.nodes.get(&task.node)?.epoch };
    match change::reattach_task(world, &me, &task.id, NOW) {
        Err(Refusal::Exhausted(reason)) => {
            Some(Shortage { object: world.task_name(task), reason, cure: LARGER.to_owned() })
        }
        _ => None,
    }
}

/// Nodes that forward nothing to a network, for they have no addresses of it.
fn blocks(world: &Snapshot, id: &NetworkId) -> Option<Shortage> {
    let network = world.networks.get(id)?;
    let held = world.blocks.range((id.clone(), Block(0))..=(id.clone(), Block(u32::MAX)));
    let owners: Vec<_> = held.map(|(_, owner)| owner).collect();
    let all = network.blocks();
    if owners.len() < (all.end - all.start) as usize {
        return None;
    }
    let owners: BTreeSet<_> = owners.into_iter().collect();
    let without: Vec<_> =
        world.nodes.keys().filter(|id| !owners.contains(id)).map(|id| name(world, id)).collect();
    let first = without.first()?;
    let more = if without.len() > 1 { format!(" and {} more", without.len() - 1) } else { String::new() };
    let reason = format!(
        "node {first}{more} forwards nothing to network {}: all {} blocks of {} are taken",
        network.name,
        all.end - all.start,
        network.v4
    );
    Some(Shortage { object: first.clone(), reason, cure: LARGER.to_owned() })
}

fn name(world: &Snapshot, id: &NodeId) -> String {
    world.nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.to_string())
}
