//! **Decision.** What changed since a revision: for whoever wants to be told of changes and may have missed some.
//!
//! It remembers which things changed, and not how: whoever asks is told what they are now. That is enough to catch up,
//! and takes the room of a key per change.

use std::collections::{BTreeSet, VecDeque};

use crate::diff::{Changes, diff};
use crate::kv::Rev;
use crate::model::{NetworkId, NodeId, ServiceId, SharedMap, Snapshot, TaskId};

/// Something that people name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    /// A network.
    Network(NetworkId),
    /// A service: it, or its tasks.
    Service(ServiceId),
    /// A task: it, or whether it gets flows.
    Task(TaskId),
    /// A node: what it says of itself, what is wanted of it, whether it shows life.
    Node(NodeId),
}

/// The last changes.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    /// Oldest first.
    changes: VecDeque<(Rev, Thing)>,
    /// Changes up to this revision are forgotten.
    forgotten: Rev,
    last: Option<Snapshot>,
}

impl Journal {
    /// How many changes are remembered.
    pub const ROOM: usize = 16_384;

    /// Notes what is different in a newer world, and tells it.
    pub fn note(&mut self, world: &Snapshot) -> BTreeSet<Thing> {
        let things = self.last.as_ref().map_or_else(BTreeSet::new, |last| changed(last, world));
        if self.last.is_none() {
            // Of the first, nobody can know what is new in it.
            self.forgotten = world.rev;
        }
        self.changes.extend(things.iter().map(|thing| (world.rev, thing.clone())));
        self.last = Some(world.clone());
        while self.changes.len() > Self::ROOM {
            // A revision is forgotten as a whole.
            let Some((rev, _)) = self.changes.pop_front() else { break };
            self.forgotten = rev;
            while self.changes.front().is_some_and(|(next, _)| *next == rev) {
                self.changes.pop_front();
            }
        }
        things
    }

    /// Up to which revision it knows of all; none: of nothing.
    pub fn rev(&self) -> Option<Rev> {
        self.last.as_ref().map(|last| last.rev)
    }

    /// What changed after a revision; none: too long ago to know.
    pub fn since(&self, rev: Rev) -> Option<BTreeSet<&Thing>> {
        if rev < self.forgotten || self.last.as_ref().is_none_or(|last| rev > last.rev) {
            return None;
        }
        let from = self.changes.partition_point(|(changed, _)| *changed <= rev);
        Some(self.changes.range(from..).map(|(_, thing)| thing).collect())
    }
}

/// What is different.
fn changed(old: &Snapshot, new: &Snapshot) -> BTreeSet<Thing> {
    let mut things = lives(old, new);
    if old.changed == new.changed {
        return things;
    }
    things.extend(changed_keys(&old.networks, &new.networks).map(Thing::Network));
    things.extend(changed_keys(&old.services, &new.services).map(Thing::Service));
    let mut nodes: BTreeSet<NodeId> = changed_keys(&old.nodes, &new.nodes).collect();
    nodes.extend(keys(diff(&old.specs, &new.specs)));
    nodes.extend(keys(diff(&old.downs, &new.downs)));
    let mut tasks: BTreeSet<TaskId> = changed_keys(&old.tasks, &new.tasks).collect();
    tasks.extend(keys(diff(&old.stops, &new.stops)));
    tasks.extend(keys(diff(&old.task_specs, &new.task_specs)));
    // Whether a task gets flows depends on its node.
    tasks.extend(nodes.iter().flat_map(|node| new.tasks.on(node)).map(|task| task.id.clone()));
    let service = |id: &TaskId| new.tasks.get(id).or_else(|| old.tasks.get(id))?.service.clone();
    things.extend(tasks.iter().filter_map(service).map(Thing::Service));
    things.extend(tasks.into_iter().map(Thing::Task));
    things.extend(nodes.into_iter().map(Thing::Node));
    let role = |world: &Snapshot, id: &NodeId| world.identities.get(id).map(|identity| identity.role);
    let other = keys(diff(&old.identities, &new.identities)).filter(|id| role(old, id) != role(new, id));
    things.extend(other.map(Thing::Node));
    things
}

/// Nodes whose sign of life says something else. One comes every few seconds, and most say the same.
fn lives(old: &Snapshot, new: &Snapshot) -> BTreeSet<Thing> {
    let told = |world: &Snapshot, id: &NodeId| world.live.get(id).map(|live| live.problems.clone());
    let differs = |id: &NodeId| told(old, id) != told(new, id);
    changed_keys(&old.live, &new.live).filter(differs).map(Thing::Node).collect()
}

fn changed_keys<'a, K: Ord + Clone, V: PartialEq>(
    old: &'a SharedMap<K, V>,
    new: &'a SharedMap<K, V>,
) -> impl Iterator<Item = K> + use<'a, K, V> {
    old.changes(new).map(|(key, _, _)| key.clone())
}

fn keys<K: Ord, V>(changes: Changes<K, V>) -> impl Iterator<Item = K> {
    let Changes { added, changed, removed, unchanged: _ } = changes;
    added.into_keys().chain(changed.into_keys()).chain(removed.into_keys())
}
