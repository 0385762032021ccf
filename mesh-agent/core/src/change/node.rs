//! **Decision.** Nodes join, tell what they see, claim blocks, are drained, and leave.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::janitor::AT_ONCE;
use super::network::overlap;
use super::{Change, Fresh, Refusal, identity, task};
use crate::kv::{Compare, Txn};
use crate::model::{Availability, Block, Listener, Name, Network, Node, NodeId, Snapshot, fnv64};
use crate::records::{self, Claim};

/// Two agents' threads, or two tasks at once, must not give out the same: whoever gives out bumps the node's
/// guard, and one of both loses.
pub(super) fn give_out(world: &Snapshot, node: &NodeId, what: &str, txn: &mut Txn) {
    let key = records::node_guard(node);
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, what);
}

/// What an agent sees of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// See [`Node::name`].
    pub name: Name,
    /// See [`Node::address`].
    pub address: IpAddr,
    /// See [`Node::vxlan_port`].
    pub vxlan_port: u16,
    /// See [`Node::boot`].
    pub boot: String,
    /// See [`Node::uplink_mtu`].
    pub uplink_mtu: u32,
    /// See [`Node::listeners`].
    pub listeners: BTreeSet<Listener>,
    /// See [`Node::routes`].
    pub routes: BTreeSet<IpNet>,
    /// See [`Node::version`].
    pub version: String,
    /// See [`Node::key`].
    pub key: String,
    /// See [`Node::reflects`].
    pub reflects: bool,
}

/// An agent, as its node's present owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The node.
    pub id: NodeId,
    /// What [`join`] gave it.
    pub epoch: u64,
}

/// A node's agent may write only while no later agent of the same node has started.
pub(super) fn own_guard<'a>(world: &'a Snapshot, me: &Me, txn: &mut Txn) -> Result<&'a Node, Refusal> {
    let node = world.nodes.get(&me.id).ok_or_else(|| Refusal::not_found("node", me.id.as_str()))?;
    if node.epoch != me.epoch {
        return Err(Refusal::Conflict(format!(
            "a later agent has taken over node {} (its epoch is {}, ours {})",
            node.name, node.epoch, me.epoch
        )));
    }
    let key = records::node(&me.id);
    txn.unchanged(&key, world.rev_of(&key));
    Ok(node)
}

/// A starting agent takes its node over: the epoch grows, and whoever held it before can write no more.
pub fn join(world: &Snapshot, id: &NodeId, facts: NodeFacts, fresh: Fresh) -> Result<Change<Node>, Refusal> {
    for other in world.nodes.values().filter(|other| other.id != *id) {
        if other.name == facts.name {
            return Err(Refusal::Conflict(format!(
                "a node named {} is in the mesh already ({}): choose another name, or remove it with 'mesh node rm'",
                facts.name,
                other.id.short()
            )));
        }
        if other.address == facts.address {
            return Err(Refusal::Conflict(format!(
                "node {} has the address {} already: every node needs its own",
                other.name, facts.address
            )));
        }
    }
    let host = IpNet::from(facts.address);
    for network in world.networks.values() {
        let meets = |net: IpNet| facts.routes.iter().chain([&host]).find(|route| overlap(**route, net));
        if let Some((subnet, route)) = network.subnets().find_map(|net| Some((net, *meets(net)?))) {
            return Err(Refusal::Conflict(format!(
                "this node already reaches {route}, which overlaps {subnet} of network {}: it would be cut off; \
                 remove the route or the network",
                network.name
            )));
        }
    }
    let old = world.nodes.get(id);
    let node = Node {
        id: id.clone(),
        name: facts.name,
        address: facts.address,
        vxlan_port: facts.vxlan_port,
        epoch: old.map_or(1, |old| old.epoch + 1),
        boot: facts.boot,
        uplink_mtu: facts.uplink_mtu,
        listeners: facts.listeners,
        routes: facts.routes,
        version: facts.version,
        started: fresh.now,
        key: facts.key,
        reflects: facts.reflects,
        left: false,
    };
    let mut txn = Txn::default();
    let key = records::node(id);
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, records::to_json(&node));
    match old {
        Some(old) if old.name == node.name => {}
        Some(old) => {
            txn.delete(records::node_name(&old.name));
            txn.claim(records::node_name(&node.name), id.as_str());
        }
        None => txn.claim(records::node_name(&node.name), id.as_str()),
    }
    Ok(Change { txn, result: node })
}

/// Tells what changed on the node since; nothing to commit when nothing did.
pub fn refresh(world: &Snapshot, me: &Me, facts: &NodeFacts) -> Result<Change<Node>, Refusal> {
    let mut txn = Txn::default();
    let old = own_guard(world, me, &mut txn)?;
    let mut node = old.clone();
    node.uplink_mtu = facts.uplink_mtu;
    node.listeners.clone_from(&facts.listeners);
    node.routes.clone_from(&facts.routes);
    if node != *old {
        txn.put(records::node(&me.id), records::to_json(&node));
    }
    Ok(Change { txn, result: node })
}

/// What this node says of itself and of its tasks is written anew, as it was, where somebody has made it make no sense:
/// nobody else does.
pub fn reassert(world: &Snapshot, me: &Me) -> Result<Change<()>, Refusal> {
    let mut txn = Txn::default();
    own_guard(world, me, &mut txn)?;
    for key in world.poison.keys() {
        let own = match key.split_once('/') {
            Some(("node", id)) => id == me.id.as_str(),
            Some(("task", id)) => world.tasks.get(id).is_some_and(|task| task.node == me.id),
            _ => false,
        };
        if let Some(value) = records::in_force(world, key).filter(|_| own) {
            if *key != records::node(&me.id) {
                txn.unchanged(key, world.rev_of(key));
            }
            txn.put(key, value);
        }
    }
    Ok(Change { txn, result: () })
}

/// The node leaves the mesh on purpose. Its record stays until it is removed, and says so.
pub fn depart(world: &Snapshot, id: &NodeId) -> Result<Change<()>, Refusal> {
    let old = world.nodes.get(id).ok_or_else(|| Refusal::not_found("node", id.as_str()))?;
    let mut txn = Txn::default();
    if !old.left {
        let key = records::node(id);
        txn.unchanged(&key, world.rev_of(&key));
        txn.put(key, records::to_json(&Node { left: true, ..old.as_ref().clone() }));
    }
    Ok(Change { txn, result: () })
}

/// A block in every network that has services or tasks: a node needs an address of its own there to forward
/// to tasks elsewhere.
pub fn claim_blocks(world: &Snapshot, me: &Me) -> Result<Change<Vec<Refusal>>, Refusal> {
    let mut txn = Txn::default();
    let mut refusals = Vec::new();
    let id = &own_guard(world, me, &mut txn)?.id;
    for network in world.networks.values() {
        let used = world.services.values().any(|service| service.attachment(&network.id).is_some());
        let has = world.blocks.iter().any(|((net, _), owner)| *net == network.id && owner == id);
        if used && !has {
            match claim_block(world, id, network, &mut txn) {
                Ok(_) => txn.compares.push(Compare::Exists(records::network(&network.id))),
                Err(refusal) => refusals.push(refusal),
            }
        }
    }
    if !txn.ops.is_empty() {
        give_out(world, id, "blocks", &mut txn);
    }
    Ok(Change { txn, result: refusals })
}

/// The first free block from where the node's id points.
pub(super) fn claim_block(
    world: &Snapshot,
    node: &NodeId,
    network: &Network,
    txn: &mut Txn,
) -> Result<Block, Refusal> {
    let numbers = network.blocks();
    let count = numbers.end - numbers.start;
    let first = (fnv64(node.as_str().as_bytes()) % u64::from(count)) as u32;
    let block = (0..count)
        .map(|step| Block(numbers.start + (first + step) % count))
        .find(|block| !world.blocks.contains_key(&(network.id.clone(), *block)))
        .ok_or_else(|| {
            Refusal::Exhausted(format!(
                "could not find an available block: all {count} of network {} ({}) are taken; \
                 a larger subnet has room for more nodes and tasks",
                network.name, network.v4
            ))
        })?;
    txn.claim(records::block_claim(&network.id, block), Claim::held(node.as_str()));
    Ok(block)
}

/// What the operator wants of a node.
pub fn set_availability(
    world: &Snapshot,
    reference: &str,
    availability: Availability,
    fresh: Fresh,
) -> Result<Change<Node>, Refusal> {
    let node = world.node(reference).ok_or_else(|| Refusal::not_found("node", reference))?;
    let mut txn = Txn::default();
    let mut spec = world.specs.get(&node.id).cloned().unwrap_or_default();
    if spec.availability != availability {
        if spec.availability == Availability::Drain {
            spec.undrained = fresh.now;
        }
        spec.drained = if availability == Availability::Drain { fresh.now } else { 0 };
        spec.availability = availability;
        let key = records::node_spec(&node.id);
        txn.unchanged(&key, world.rev_of(&key));
        txn.put(key, records::to_json(&spec));
        txn.compares.push(Compare::Exists(records::node(&node.id)));
    }
    Ok(Change { txn, result: node.as_ref().clone() })
}

/// Removes a node that is gone for good, with its tasks and blocks; its certificates are good for nothing any more.
pub fn remove_node(world: &Snapshot, reference: &str, force: bool) -> Result<Change<Node>, Refusal> {
    let node = world.node(reference).ok_or_else(|| Refusal::not_found("node", reference))?;
    if world.is_manager(&node.id) {
        return Err(Refusal::Conflict(format!(
            "node {0} is a manager: demote it first ('mesh cluster demote {0}')",
            node.name
        )));
    }
    if world.live.contains_key(&node.id) && !force {
        return Err(Refusal::Conflict(format!(
            "node {} is alive: stop its agent first, or use --force",
            node.name
        )));
    }
    let mut txn = Txn::default();
    let key = records::node(&node.id);
    txn.unchanged(&key, world.rev_of(&key));
    txn.delete(key);
    txn.delete(records::node_name(&node.name));
    txn.delete(records::node_spec(&node.id));
    txn.delete(records::live(&node.id));
    txn.delete(records::down(&node.id));
    txn.delete(records::signing_request(&node.id));
    txn.delete(records::certificate(&node.id));
    let guard = records::node_guard(&node.id);
    txn.unchanged(&guard, world.rev_of(&guard));
    txn.delete(guard);
    identity::deny(world, &node.id, &mut txn);
    // As many as go into one transaction; the janitor takes the rest.
    for task in world.tasks.on(&node.id).iter().take(AT_ONCE) {
        task::delete(task, &mut txn);
    }
    for ((network, block), _) in world.blocks.iter().filter(|(_, owner)| **owner == node.id).take(AT_ONCE) {
        txn.delete(records::block_claim(network, *block));
    }
    Ok(Change { txn, result: node.as_ref().clone() })
}
