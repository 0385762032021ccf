//! **Decision.** Tasks come, move forward through their states, and go. Only a task's own node writes them.

use std::net::IpAddr;

use super::node::{self, Me, own_guard};
use super::{Change, Fresh, Refusal};
use crate::kv::{Compare, Txn};
use crate::model::{
    Availability, Block, Ejected, Few, Health, Name, Network, NetworkId, NodeId, Origin, Service, Snapshot,
    Task, TaskAddress, TaskId, TaskState, fnv64,
};
use crate::records::{self, Claim};

/// A wish to register a task on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRequest {
    /// What it serves; name or id.
    pub service: Option<String>,
    /// A name of its own, only without a service.
    pub name: Option<String>,
    /// Networks of a task of its own. A service's task is in all of the service's networks; naming one of them
    /// is fine, another is a mistake.
    pub networks: Vec<String>,
    /// Where it lives.
    pub origin: Origin,
    /// Share of new flows.
    pub weight: u16,
    /// Name servers of its own.
    pub dns: Vec<IpAddr>,
    /// See [`Task::packets_only`].
    pub packets_only: bool,
    /// How far it is.
    pub state: TaskState,
    /// Its number among the service's tasks; none: the first that is free.
    pub slot: Option<u32>,
    /// See [`Task::program`].
    pub program: Option<u64>,
}

/// What may change of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// Forward only; an earlier one is passed over.
    pub state: Option<TaskState>,
    /// Whether it can serve.
    pub health: Option<Health>,
    /// Whether its service's check says so.
    pub checked: bool,
    /// Whether it is sick by what it makes of connections.
    pub ejected: Option<Option<Ejected>>,
    /// Share of new flows.
    pub weight: Option<u16>,
    /// No new flows any more.
    pub draining: Option<bool>,
    /// What happened.
    pub message: Option<String>,
}

/// Whether another may answer at an address: not everybody, and not the mesh itself in a task.
fn may_be_asked(server: IpAddr) -> bool {
    let server = server.to_canonical();
    !server.is_unspecified() && !server.is_multicast() && server != IpAddr::from([127, 0, 0, 11])
}

/// Registers a task on a node: addresses out of the node's blocks (claiming one if need be), a slot, a record.
pub fn add_task(
    world: &Snapshot,
    me: &Me,
    request: TaskRequest,
    fresh: Fresh,
) -> Result<Change<Task>, Refusal> {
    let mut txn = Txn::default();
    let node = &me.id;
    let me = own_guard(world, me, &mut txn)?;
    let availability = world.availability(node);
    if availability != Availability::Active {
        return Err(Refusal::Conflict(format!(
            "node {} takes no new tasks: its availability is '{availability}' \
             (mesh node update --availability active {})",
            me.name, me.name
        )));
    }
    let twin = world
        .tasks
        .on(node)
        .iter()
        .find(|task| task.origin.is_same_place(&request.origin) && !task.state.is_terminal());
    if let Some(twin) = twin {
        return Err(Refusal::Conflict(format!(
            "this namespace is registered already, as task {}",
            world.task_name(twin)
        )));
    }
    if let Some(wrong) = request.dns.iter().find(|server| !may_be_asked(**server)) {
        return Err(Refusal::Invalid(format!(
            "invalid name server {wrong}: nobody else answers at that address"
        )));
    }
    let id = TaskId::from_random(fresh.id);
    let mut health = Health::None;
    let (service, slot, name, networks) = match &request.service {
        Some(reference) => {
            let service = world.service(reference).ok_or_else(|| Refusal::not_found("service", reference))?;
            if request.name.is_some() {
                return Err(Refusal::Invalid(format!(
                    "a task of a service has no name of its own: it is '{}.SLOT'",
                    service.name
                )));
            }
            let networks = service_networks(world, service, &request.networks)?;
            if service.health.is_some() {
                health = Health::Starting;
            }
            let slot = free_slot(world, service, request.slot)?;
            txn.claim(records::slot_claim(&service.id, slot), Claim::held(id.as_str()));
            // A service that goes meanwhile takes the task with it.
            txn.compares.push(Compare::Exists(records::service(&service.id)));
            (Some(service.id.clone()), slot, None, networks)
        }
        None => {
            let name: Name = match &request.name {
                Some(name) => name.parse()?,
                None => format!("task-{}", id.short()).parse()?,
            };
            if world.services.values().any(|service| service.name == name) {
                return Err(Refusal::Conflict(format!("a service is named {name} already")));
            }
            if world.tasks.values().any(|task| task.name.as_ref() == Some(&name)) {
                return Err(Refusal::Conflict(format!("a task is named {name} already")));
            }
            txn.claim(records::task_index(&name), id.as_str());
            (None, 0, Some(name), named_networks(world, &request.networks)?)
        }
    };
    let mut addresses = Few::default();
    for network in networks {
        addresses.insert(network.id.clone(), allocate(world, node, network, &id, &mut txn)?);
        txn.compares.push(Compare::Exists(records::network(&network.id)));
    }
    node::give_out(world, node, id.as_str(), &mut txn);
    let mut task = Task {
        id,
        service,
        slot,
        name,
        node: node.clone(),
        epoch: me.epoch,
        addresses,
        state: request.state,
        health,
        checked: health != Health::None,
        ejected: None,
        weight: request.weight,
        draining: false,
        message: String::new(),
        origin: request.origin,
        dns: request.dns,
        packets_only: request.packets_only,
        program: request.program,
        ready_since: 0,
        created: fresh.now,
        updated: fresh.now,
    };
    if task.ready() {
        task.ready_since = fresh.now;
    }
    txn.claim(records::task(&task.id), records::to_json(&task));
    Ok(Change { txn, result: task })
}

/// Changes a task of this node.
pub fn change_task(
    world: &Snapshot,
    me: &Me,
    id: &TaskId,
    change: TaskChange,
    fresh: Fresh,
) -> Result<Change<Task>, Refusal> {
    let old = own_task(world, &me.id, id)?;
    let mut task = old.clone();
    task.state = task.state.advance(change.state.unwrap_or(task.state));
    if let Some(health) = change.health {
        let service = task.service.as_ref().and_then(|id| world.services.get(id));
        if let Some(check) = service.and_then(|service| service.health.as_ref()).filter(|_| !change.checked) {
            return Err(Refusal::Conflict(format!(
                "the health of task {} is what its service's check finds ({}): \
                 'mesh service update --no-healthcheck' ends that",
                world.task_name(&task),
                check.probe
            )));
        }
        (task.health, task.checked) = (health, change.checked && health != Health::None);
    }
    task.ejected = change.ejected.unwrap_or(task.ejected);
    task.weight = change.weight.unwrap_or(task.weight);
    task.draining = change.draining.unwrap_or(task.draining);
    task.message = change.message.unwrap_or_else(|| task.message.clone());
    if task == *old {
        return Ok(Change { txn: Txn::default(), result: task });
    }
    if task.ready() && !old.ready() {
        task.ready_since = fresh.now;
    }
    task.epoch = me.epoch;
    task.updated = fresh.now;
    let mut txn = Txn::default();
    own_guard(world, me, &mut txn)?;
    let key = records::task(id);
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, records::to_json(&task));
    Ok(Change { txn, result: task })
}

/// Brings one of the node's tasks into the networks that its service has joined, and out of those it has left.
/// Nothing to commit when all are where they belong; one task at a time, so that one refusal holds up no other.
pub fn reattach_task(world: &Snapshot, me: &Me, id: &TaskId, fresh: Fresh) -> Result<Change<Task>, Refusal> {
    let mut task = own_task(world, &me.id, id)?.clone();
    let mut txn = Txn::default();
    own_guard(world, me, &mut txn)?;
    let service = task.service.as_ref().and_then(|id| world.services.get(id));
    if let Some(service) = service.filter(|_| !task.state.is_terminal()) {
        task.addresses.retain(|network, _| service.attachment(network).is_some());
        for network in service_networks(world, service, &[])? {
            if !task.addresses.contains_key(&network.id) {
                let address = allocate(world, &me.id, network, id, &mut txn)?;
                task.addresses.insert(network.id.clone(), address);
                txn.compares.push(Compare::Exists(records::network(&network.id)));
            }
        }
        let key = records::task(id);
        if world.tasks.get(id).is_some_and(|old| old.addresses != task.addresses) {
            task.updated = fresh.now;
            node::give_out(world, &me.id, id.as_str(), &mut txn);
            txn.unchanged(&key, world.rev_of(&key));
            txn.put(key, records::to_json(&task));
        }
    }
    Ok(Change { txn, result: task })
}

/// Asks a task to stop. Its node carries it out: no new flows, then the end.
pub fn stop_task(world: &Snapshot, reference: &str) -> Result<Change<Task>, Refusal> {
    let task = world.task(reference).ok_or_else(|| Refusal::not_found("task", reference))?;
    let mut txn = Txn::default();
    txn.compares.push(Compare::Exists(records::task(&task.id)));
    if !world.stops.contains_key(&task.id) {
        txn.put(records::stop(&task.id), "{}");
    }
    Ok(Change { txn, result: task.as_ref().clone() })
}

/// What the operator wants of a task: drained, it gets no new flows and is not stopped.
pub fn set_task_availability(
    world: &Snapshot,
    reference: &str,
    availability: Availability,
    fresh: Fresh,
) -> Result<Change<Task>, Refusal> {
    let task = world.task(reference).ok_or_else(|| Refusal::not_found("task", reference))?;
    if availability == Availability::Pause {
        return Err(Refusal::Invalid(
            "invalid availability value (pause): a task's must be one of 'active', 'drain'".to_owned(),
        ));
    }
    let mut txn = Txn::default();
    let mut spec = world.task_specs.get(&task.id).cloned().unwrap_or_default();
    if spec.availability != availability {
        if spec.availability == Availability::Drain {
            spec.undrained = fresh.now;
        }
        spec.availability = availability;
        let key = records::task_spec(&task.id);
        txn.unchanged(&key, world.rev_of(&key));
        txn.put(key, records::to_json(&spec));
        txn.compares.push(Compare::Exists(records::task(&task.id)));
    }
    Ok(Change { txn, result: task.as_ref().clone() })
}

/// Removes all trace of a task of this node.
pub fn forget_task(world: &Snapshot, me: &Me, id: &TaskId) -> Result<Change<Task>, Refusal> {
    let task = own_task(world, &me.id, id)?;
    let mut txn = Txn::default();
    own_guard(world, me, &mut txn)?;
    delete(task, &mut txn);
    Ok(Change { txn, result: task.clone() })
}

/// All keys of a task.
pub(super) fn delete(task: &Task, txn: &mut Txn) {
    txn.delete(records::task(&task.id));
    txn.delete(records::stop(&task.id));
    txn.delete(records::task_spec(&task.id));
    if let Some(service) = &task.service {
        txn.delete(records::slot_claim(service, task.slot));
    }
    if let Some(name) = &task.name {
        txn.delete(records::task_index(name));
    }
}

/// The number of a new task: the one that is asked for, or the first that is free.
fn free_slot(world: &Snapshot, service: &Service, wanted: Option<u32>) -> Result<u32, Refusal> {
    let is_free = |slot: &u32| !world.claims.contains_key(&*records::slot_claim(&service.id, *slot));
    match wanted {
        Some(slot) if slot == 0 || !is_free(&slot) => {
            Err(Refusal::Conflict(format!("slot {slot} of service {} is taken", service.name)))
        }
        Some(slot) => Ok(slot),
        None => Ok((1..).find(is_free).unwrap_or(u32::MAX)),
    }
}

fn own_task<'a>(world: &'a Snapshot, node: &NodeId, id: &TaskId) -> Result<&'a Task, Refusal> {
    let task = world.tasks.get(id).ok_or_else(|| Refusal::not_found("task", id.as_str()))?;
    if task.node != *node {
        let place = world.nodes.get(&task.node).map_or(task.node.short(), |node| node.name.as_str());
        return Err(Refusal::Conflict(format!(
            "task {} belongs to another node: change it on {place}",
            world.task_name(task)
        )));
    }
    Ok(task)
}

fn service_networks<'a>(
    world: &'a Snapshot,
    service: &Service,
    wanted: &[String],
) -> Result<Vec<&'a Network>, Refusal> {
    let all: Vec<&Network> =
        service.networks.iter().filter_map(|a| world.networks.get(&a.network)).map(AsRef::as_ref).collect();
    for reference in wanted {
        let network = world.network(reference).ok_or_else(|| Refusal::not_found("network", reference))?;
        if service.attachment(&network.id).is_none() {
            let names: Vec<_> = all.iter().map(|network| network.name.as_str()).collect();
            return Err(Refusal::Invalid(format!(
                "service {} is not in network {}; it is in {}",
                service.name,
                network.name,
                names.join(", ")
            )));
        }
    }
    Ok(all)
}

fn named_networks<'a>(world: &'a Snapshot, wanted: &[String]) -> Result<Vec<&'a Network>, Refusal> {
    if wanted.is_empty() {
        return Err(Refusal::Invalid(
            "a task without a service needs a network: name one with --network".to_owned(),
        ));
    }
    let mut networks: Vec<&Network> = Vec::new();
    for reference in wanted {
        let network = world.network(reference).ok_or_else(|| Refusal::not_found("network", reference))?;
        if !networks.iter().any(|known| known.id == network.id) {
            networks.push(network);
        }
    }
    Ok(networks)
}

/// A free address in one of the node's blocks, from where the task's id points, so that an address just given
/// back is not the next one given out; else the first address of a further block, claimed in passing.
fn allocate(
    world: &Snapshot,
    node: &NodeId,
    network: &Network,
    task: &TaskId,
    txn: &mut Txn,
) -> Result<TaskAddress, Refusal> {
    let taken: std::collections::BTreeSet<_> = world
        .tasks
        .values()
        .filter_map(|task| task.addresses.get(&network.id))
        .map(|address| address.v4)
        .collect();
    let places: Vec<u32> = network.task_places().collect();
    let first = (fnv64(task.as_str().as_bytes()) % places.len() as u64) as usize;
    let free = |block: Block| {
        let turns = (0..places.len()).map(|step| places[(first + step) % places.len()]);
        turns.map(|place| network.address_in(block, place)).find(|address| !taken.contains(&address.v4))
    };
    if let Some(address) = own_blocks(world, node, &network.id).find_map(&free) {
        return Ok(address);
    }
    let block = node::claim_block(world, node, network, txn)?;
    free(block).ok_or_else(|| Refusal::Exhausted(format!("network {} has no address left", network.name)))
}

fn own_blocks<'a>(
    world: &'a Snapshot,
    node: &'a NodeId,
    network: &'a NetworkId,
) -> impl Iterator<Item = Block> + 'a {
    world
        .blocks
        .iter()
        .filter(move |((id, _), owner)| id == network && *owner == node)
        .map(|((_, block), _)| *block)
}
