//! **Decision.** What a worker may write: each key, and why not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::Forbidden;
use crate::kv::{Compare, MAX_OPS, Op, Rev, Txn};
use crate::model::{Live, NetworkId, Node, NodeId, Snapshot, Task, TaskAddress, TaskId};
use crate::records::{self, Claim};

type Verdict = Result<(), Forbidden>;

/// A transaction of a worker's, as it is judged.
struct Judge<'a> {
    world: &'a Snapshot,
    node: &'a NodeId,
    /// Keys that are to be absent.
    claimed: BTreeSet<&'a str>,
    /// Tasks that are written.
    puts: BTreeMap<TaskId, Task>,
    /// Tasks that are removed.
    deletes: BTreeSet<TaskId>,
    /// What the judgement rests on.
    pins: BTreeMap<String, Rev>,
}

pub(super) fn judge(world: &Snapshot, node: &NodeId, txn: Txn) -> Result<Txn, Forbidden> {
    let own = records::node(node);
    let fenced = txn.compares.iter().any(|c| matches!(c, Compare::Modified(key, _) if *key == own));
    let mut judge = Judge::of(world, node, &txn)?;
    for op in &txn.ops {
        let (kind, rest) = op.key().split_once('/').unwrap_or((op.key(), ""));
        let leased = matches!(op, Op::Put { lease: Some(_), .. });
        if leased && kind != "live" {
            return refuse(format!("{} must not be under a lease", op.key()));
        }
        match (kind, op) {
            ("task", _) => judge.task(op, &TaskId::new(rest))?,
            ("stop" | "taskspec", _) => judge.own_task(&TaskId::new(rest)).map(drop)?,
            ("node" | "live" | "csr", Op::Put { value, .. }) => judge.about_itself(kind, rest, value)?,
            ("guard", Op::Put { .. }) if op.key() == records::node_guard(node) => {}
            ("idx", _) => judge.name(op, rest)?,
            ("claim", _) => judge.claim(op, rest)?,
            _ => return judge.not_a_workers(op.key()),
        }
        // A sign of life says its epoch itself, and that a task is to stop may be said by any program of the node.
        if !fenced && !matches!((kind, op), ("live", _) | ("stop" | "taskspec", Op::Put { .. })) {
            return refuse(format!(
                "{} may only be written on the condition that {own} is unchanged: a later agent may have started",
                op.key()
            ));
        }
    }
    let pins = judge.pins;
    let mut txn = txn;
    for (key, rev) in pins {
        let pin = Compare::Modified(key, rev);
        if !txn.compares.contains(&pin) {
            txn.compares.push(pin);
        }
    }
    if txn.compares.len() > MAX_OPS {
        return refuse(format!("it touches so much that {MAX_OPS} conditions do not hold it together"));
    }
    Ok(txn)
}

fn refuse<T>(why: String) -> Result<T, Forbidden> {
    Err(Forbidden(why))
}

fn read<T: DeserializeOwned>(key: &str, value: &str) -> Result<T, Forbidden> {
    serde_json::from_str(value)
        .map_err(|error| Forbidden(format!("the value of {key} makes no sense: {error}")))
}

impl<'a> Judge<'a> {
    fn of(world: &'a Snapshot, node: &'a NodeId, txn: &'a Txn) -> Result<Self, Forbidden> {
        let absent = |compare: &'a Compare| match compare {
            Compare::Absent(key) | Compare::Modified(key, Rev(0)) => Some(key.as_str()),
            Compare::Exists(_) | Compare::Modified(..) => None,
        };
        let claimed = txn.compares.iter().filter_map(absent).collect();
        let (mut puts, mut deletes) = (BTreeMap::new(), BTreeSet::new());
        for op in &txn.ops {
            let Some(id) = op.key().strip_prefix("task/") else { continue };
            match op {
                Op::Put { key, value, .. } => drop(puts.insert(TaskId::new(id), read(key, value)?)),
                Op::Delete(_) => drop(deletes.insert(TaskId::new(id))),
            }
        }
        Ok(Self { world, node, claimed, puts, deletes, pins: BTreeMap::new() })
    }

    fn pin(&mut self, key: String) {
        let rev = self.world.rev_of(&key);
        self.pins.insert(key, rev);
    }

    fn me(&self) -> &str {
        self.world.nodes.get(self.node).map_or(self.node.short(), |node| node.name.as_str())
    }

    fn not_a_workers<T>(&self, key: &str) -> Result<T, Forbidden> {
        let what = match key.split('/').next().unwrap_or_default() {
            "net" => "networks are made and removed",
            "svc" => "services are made, changed and removed",
            "nodespec" | "identity" | "denied" | "node" | "live" => "other nodes are changed and removed",
            "token" => "tokens are made",
            "ask" => "all nodes are asked",
            _ => "this is written",
        };
        let key: String = key.chars().take(80).collect();
        refuse(format!("node {} is a worker and may not write {key}: {what} on a manager", self.me()))
    }

    /// A key that ends in the node's own id.
    fn about_itself(&self, kind: &str, id: &str, value: &str) -> Verdict {
        let key = format!("{kind}/{id}");
        if id != self.node.as_str() {
            return self.not_a_workers(&key);
        }
        match kind {
            "node" => {
                let node: Node = read(&key, value)?;
                if node.id != *self.node {
                    return refuse(format!("{key} must be about the node itself"));
                }
                let twin = self.world.nodes.values().find(|n| n.address == node.address && n.id != node.id);
                let Some(twin) = twin else { return Ok(()) };
                refuse(format!("{key}: the address {} is that of node {}", node.address, twin.name))
            }
            "live" => read::<Live>(&key, value).map(drop),
            _ => Ok(()),
        }
    }

    /// A task that is this node's, or is not there; which of both holds until it commits.
    fn own_task(&mut self, id: &TaskId) -> Result<Option<&'a Task>, Forbidden> {
        let key = records::task(id);
        let known = self.world.tasks.get(id).map(AsRef::as_ref);
        match known {
            Some(task) if task.node != *self.node => {
                return refuse(format!(
                    "node {} may not write task {}: it belongs to another node",
                    self.me(),
                    self.world.task_name(task)
                ));
            }
            None if self.world.poison.contains_key(&key) => {
                return refuse(format!("{key} cannot be read, so it is not known whose it is"));
            }
            Some(_) | None => {}
        }
        // Its own sign that it is new, or what is about to be written with it, says enough.
        if !(self.claimed.contains(key.as_str()) && known.is_none()) {
            self.pin(key);
        }
        Ok(known)
    }

    fn task(&mut self, op: &Op, id: &TaskId) -> Verdict {
        let old = self.own_task(id)?;
        if matches!(op, Op::Delete(_)) {
            return Ok(());
        }
        let Some(task) = self.puts.get(id).cloned() else { return Ok(()) };
        if task.id != *id || task.node != *self.node {
            return refuse(format!("{} must be about a task of the node itself", op.key()));
        }
        if old
            .is_some_and(|old| (&old.service, old.slot, &old.name) != (&task.service, task.slot, &task.name))
        {
            return refuse(format!("{}: a task's service, slot and name never change", op.key()));
        }
        for (network, address) in &task.addresses {
            if old.and_then(|old| old.addresses.get(network)) != Some(address) {
                self.address(op.key(), network, address)?;
            }
        }
        Ok(())
    }

    /// An address is out of a block that the node holds, or takes with this very transaction.
    fn address(&mut self, key: &str, id: &NetworkId, address: &TaskAddress) -> Verdict {
        let Some(network) = self.world.networks.get(id) else {
            return refuse(format!("{key}: network {id} is not known"));
        };
        let block = network.block_of(address.v4.into());
        let same = address.v6.is_none_or(|v6| network.block_of(v6.into()) == block);
        let Some(block) = block.filter(|_| same) else {
            return refuse(format!("{key}: {} is in no block of network {}", address.v4, network.name));
        };
        let claim = records::block_claim(id, block);
        let held = self.world.blocks.get(&(id.clone(), block));
        if held == Some(self.node) {
            self.pin(claim);
            return Ok(());
        }
        // That it is claimed for this node is judged with the claim.
        if held.is_none() && self.claimed.contains(claim.as_str()) {
            return Ok(());
        }
        refuse(format!(
            "{key}: {} is in a block of network {} that node {} does not hold",
            address.v4,
            network.name,
            self.me()
        ))
    }

    fn claim(&mut self, op: &Op, rest: &str) -> Verdict {
        let key = op.key();
        let (kind, _) = rest.split_once('/').unwrap_or((rest, ""));
        match (kind, op) {
            ("block", Op::Put { value, .. }) if self.claimed.contains(key) => {
                let claim: Claim = read(key, value)?;
                let own = *claim.owner == *self.node.as_str() && claim.released.is_none();
                if own { Ok(()) } else { refuse(format!("{key} may only be claimed for the node itself")) }
            }
            ("slot", Op::Put { value, .. }) if self.claimed.contains(key) => {
                let claim: Claim = read(key, value)?;
                let task = self.puts.get(&TaskId::new(claim.owner));
                let fits = |task: &Task| slot(task).as_deref() == Some(key) && claim.released.is_none();
                if task.is_some_and(fits) { Ok(()) } else { self.with_its_task(key) }
            }
            ("slot", Op::Delete(_)) => {
                let holder =
                    self.world.claims.get(key).map(|held| TaskId::new(Arc::clone(&held.claim.owner)));
                self.pin(key.to_owned());
                let gone = self.world.rev_of(key) == Rev(0);
                let fits = holder.map_or(gone, |holder| self.deletes.contains(&holder));
                if fits { Ok(()) } else { self.with_its_task(key) }
            }
            ("block" | "slot", Op::Put { .. }) => {
                refuse(format!("{key} may only be claimed while nobody has it"))
            }
            _ => self.not_a_workers(key),
        }
    }

    fn with_its_task(&self, key: &str) -> Verdict {
        refuse(format!("node {} may write {key} only together with the task that has it", self.me()))
    }

    fn name(&mut self, op: &Op, rest: &str) -> Verdict {
        let key = op.key();
        let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
        let fits = match (kind, op) {
            ("node", Op::Put { value, .. }) => value == self.node.as_str() && self.claimed.contains(key),
            ("node", Op::Delete(_)) => {
                self.pin(records::node(self.node));
                self.world.nodes.get(self.node).is_some_and(|node| node.name.as_str() == name)
            }
            ("task", Op::Put { value, .. }) => {
                let task = self.puts.get(&TaskId::new(value.as_str()));
                self.claimed.contains(key) && task.is_some_and(|task| is_named(task, name))
            }
            ("task", Op::Delete(_)) => {
                self.pin(key.to_owned());
                let mut own = self.deletes.iter().filter_map(|id| self.world.tasks.get(id));
                self.world.rev_of(key) == Rev(0) || own.any(|task| is_named(task, name))
            }
            _ => return self.not_a_workers(key),
        };
        if fits {
            Ok(())
        } else {
            refuse(format!("node {} may not write the name {key}: it is not its own", self.me()))
        }
    }
}

fn slot(task: &Task) -> Option<String> {
    task.service.as_ref().map(|service| records::slot_claim(service, task.slot))
}

fn is_named(task: &Task, name: &str) -> bool {
    task.name.as_ref().is_some_and(|own| own.as_str() == name)
}
