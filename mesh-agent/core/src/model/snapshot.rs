//! The whole world at one revision, immutable.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Availability, Block, Denied, Down, Identity, Live, MemberRotation, Name, Network, NetworkId, Node,
    NodeId, NodeSpec, Program, Role, Rotation, Service, ServiceId, SharedMap, Task, TaskId, TaskSpec, Tasks,
    Timestamp, Tokens, Verification,
};
use crate::kv::Rev;
use crate::records::{self, HeldClaim};

/// Everything that decisions are made of. Cloning is cheap enough to publish one per change: what stays is shared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision that this is the state of.
    pub rev: Rev,
    /// The newest revision that changed anything but signs of life; what nodes report as applied.
    pub changed: Rev,
    /// By id.
    pub networks: SharedMap<NetworkId, Arc<Network>>,
    /// By id.
    pub services: SharedMap<ServiceId, Arc<Service>>,
    /// By id.
    pub tasks: Tasks,
    /// By id.
    pub nodes: SharedMap<NodeId, Arc<Node>>,
    /// What operators said; a node without one is active.
    pub specs: BTreeMap<NodeId, NodeSpec>,
    /// What operators said of tasks; one without is active.
    pub task_specs: BTreeMap<TaskId, TaskSpec>,
    /// Which generation of the records it is; see [`crate::records::GENERATION`].
    pub generation: u64,
    /// Signs of life.
    pub live: SharedMap<NodeId, Live>,
    /// What managers agree on: see [`Self::down_nodes`] for what of it counts.
    pub downs: BTreeMap<NodeId, Down>,
    /// Who holds which block.
    pub blocks: SharedMap<(NetworkId, Block), NodeId>,
    /// Tasks that someone asked to stop; their nodes carry it out.
    pub stops: BTreeMap<TaskId, Rev>,
    /// Everything that exists once and is held or waits to be given out again, by key.
    pub claims: SharedMap<Arc<str>, HeldClaim>,
    /// Tokens to join with, by what they make of who joins.
    pub tokens: BTreeMap<Role, Tokens>,
    /// Which nodes have certificates.
    pub identities: SharedMap<NodeId, Identity>,
    /// Certificates that are no longer good, by serial number.
    pub denied: BTreeMap<String, Denied>,
    /// Which authority nodes need certificates of, if it was ever replaced.
    pub rotation: Option<Rotation>,
    /// What all nodes are asked to compare, if anything.
    pub verification: Option<Verification>,
    /// Which authority etcd's members need certificates of, if it was ever replaced.
    pub member_rotation: Option<MemberRotation>,
    /// When each record was last written, by key: for compare-and-set.
    pub revs: SharedMap<Arc<str>, Rev>,
    /// Records that could not be read, by key: ignored, counted, reported, never a panic.
    pub poison: BTreeMap<String, String>,
}

impl Snapshot {
    /// When a key was last written; 0: it is not there.
    pub fn rev_of(&self, key: &str) -> Rev {
        self.revs.get(key).copied().unwrap_or_default()
    }

    /// A network by name, whole id, or unambiguous beginning of an id.
    pub fn network(&self, reference: &str) -> Option<&Arc<Network>> {
        find(&self.networks, reference, |n| &n.name, |n| n.id.as_str())
    }

    /// A service by name, whole id, or unambiguous beginning of an id.
    pub fn service(&self, reference: &str) -> Option<&Arc<Service>> {
        find(&self.services, reference, |s| &s.name, |s| s.id.as_str())
    }

    /// A node by name, whole id, or unambiguous beginning of an id.
    pub fn node(&self, reference: &str) -> Option<&Arc<Node>> {
        find(&self.nodes, reference, |n| &n.name, |n| n.id.as_str())
    }

    /// A task by `service.slot`, name of its own, whole id, or unambiguous beginning of an id.
    pub fn task(&self, reference: &str) -> Option<&Arc<Task>> {
        if let Some((service, slot)) = reference.rsplit_once('.') {
            let service = &self.service(service)?.id;
            let slot: u32 = slot.parse().ok()?;
            return self.tasks.of(service).iter().find(|task| task.slot == slot);
        }
        let named =
            self.tasks.values().find(|t| t.name.as_ref().is_some_and(|name| name.as_str() == reference));
        named.or_else(|| by_id_prefix(self.tasks.values(), reference, |t| t.id.as_str()))
    }

    /// `web.1`, a name of its own, or the id where the service is gone.
    pub fn task_name(&self, task: &Task) -> String {
        let service = task.service.as_ref().and_then(|id| self.services.get(id));
        match (service, &task.name) {
            (Some(service), _) => format!("{}.{}", service.name, task.slot),
            (None, Some(name)) => name.to_string(),
            (None, None) => task.id.to_string(),
        }
    }

    /// A service's tasks, by slot.
    pub fn tasks_of(&self, service: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.of(service).iter()
    }

    /// What the operator wants of a node.
    pub fn availability(&self, node: &NodeId) -> Availability {
        self.specs.get(node).map_or(Availability::Active, |spec| spec.availability)
    }

    /// Whether a node's tasks are to get no new flows, by its operator's or its own will.
    pub fn is_withdrawn(&self, node: &NodeId) -> bool {
        self.availability(node) == Availability::Drain || self.nodes.get(node).is_some_and(|node| node.left)
    }

    /// The nodes that are dead, as managers agree; whoever has started since is not meant.
    pub fn down_nodes(&self) -> impl Iterator<Item = &NodeId> {
        let meant =
            |(id, down): &(&NodeId, &Down)| self.nodes.get(*id).is_some_and(|n| n.epoch == down.epoch);
        self.downs.iter().filter(meant).map(|(id, _)| id)
    }

    /// The nodes that are to keep the records; none where others keep them.
    pub fn manager_ids(&self) -> impl Iterator<Item = &NodeId> {
        let managers = self.identities.iter().filter(|(_, identity)| identity.role == Role::Manager);
        managers.map(|(id, _)| id)
    }

    /// Whether a node is to keep the records.
    pub fn is_manager(&self, node: &NodeId) -> bool {
        self.identities.get(node).is_some_and(|identity| identity.role == Role::Manager)
    }

    /// The nodes that keep the records, as far as they have a record of their own.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.manager_ids().filter_map(|id| self.nodes.get(id))
    }

    /// Whether a task may get new flows: it is ready, was not asked to stop, and its node is known,
    /// has not left and is not drained.
    pub fn in_balance(&self, task: &Task) -> bool {
        task.ready() && self.is_wanted(task)
    }

    /// Whether its address is told where those that cannot serve are told, too: it has not ended and is not leaving.
    pub fn is_published(&self, task: &Task) -> bool {
        !task.state.is_terminal() && !task.draining && self.is_wanted(task)
    }

    /// Whether nobody wants a task to stop, or it or its node to be left alone.
    pub(super) fn is_wanted(&self, task: &Task) -> bool {
        !self.stops.contains_key(&task.id) && self.nodes.contains_key(&task.node) && !self.is_drained(task)
    }

    /// Whether a task, or its node, is drained, or its node leaves. Not yet, where it serves until another does in its
    /// stead: then it is told to stop.
    pub fn is_drained(&self, task: &Task) -> bool {
        let spec = self.task_specs.get(&task.id);
        let left = || self.nodes.get(&task.node).is_some_and(|node| node.left);
        spec.is_some_and(|spec| spec.availability == Availability::Drain)
            || self.is_withdrawn(&task.node) && (left() || !self.is_handed_over(task))
    }

    /// Whether a drain of its node is to have another task serve before this one goes.
    fn is_handed_over(&self, task: &Task) -> bool {
        let program = || self.services.get(task.service.as_ref()?)?.program.as_ref();
        task.program.is_some() && program().is_some_and(Program::hands_over)
    }

    /// Whether a node that is, or would be, drained serves until others do in its tasks' stead.
    pub fn hands_over(&self, node: &NodeId) -> bool {
        self.tasks.on(node).iter().any(|task| self.is_handed_over(task) && self.in_balance(task))
    }

    /// Whether a task is on its way out of the balance, with connections that may go on for a while.
    pub fn is_leaving(&self, task: &Task) -> bool {
        let orphan = task.service.as_ref().is_some_and(|id| self.rev_of(&records::service(id)) == Rev(0));
        orphan || task.draining || self.stops.contains_key(&task.id) || self.is_drained(task)
    }

    /// Since when a task that is in the balance has been in it.
    pub fn in_balance_since(&self, task: &Task) -> Timestamp {
        let undrained = self.specs.get(&task.node).map_or(0, |spec| spec.undrained);
        let spec = self.task_specs.get(&task.id).map_or(0, |spec| spec.undrained);
        task.ready_since.max(undrained).max(spec)
    }
}

fn find<'a, K, V>(
    all: &'a SharedMap<K, Arc<V>>,
    reference: &str,
    name: impl Fn(&V) -> &Name,
    id: impl Fn(&V) -> &str,
) -> Option<&'a Arc<V>> {
    all.values().find(|v| name(v).as_str() == reference).or_else(|| by_id_prefix(all.values(), reference, id))
}

fn by_id_prefix<'a, V>(
    all: impl Iterator<Item = &'a Arc<V>>,
    reference: &str,
    id: impl Fn(&V) -> &str,
) -> Option<&'a Arc<V>> {
    if reference.is_empty() {
        return None;
    }
    let mut found = all.filter(|v| id(v).starts_with(reference));
    let first = found.next()?;
    // Two candidates are no answer, except that a whole id always is.
    if id(first) == reference || found.next().is_none() { Some(first) } else { None }
}
