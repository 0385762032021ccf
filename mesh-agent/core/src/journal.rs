//! **Decision.** What changed since a revision: for whoever wants to be told of changes and may have missed some.
//!
//! It remembers which things changed, and not how: whoever asks is told what they are now. That is enough to catch up,
//! and takes the room of a key per change.

use std::collections::{BTreeSet, VecDeque};

use crate::diff::{Changes, diff};
use crate::kv::Rev;
use crate::liveness::Masks;
use crate::model::{NetworkId, NodeId, ServiceId, SharedMap, Snapshot, TaskId};
use crate::serving::Serving;

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
    /// Oldest first. Of one revision those first that came with it, then those whose node is heard no more, or again.
    changes: VecDeque<(Rev, bool, Thing)>,
    /// Changes up to this revision are forgotten.
    forgotten: Rev,
    last: Option<Snapshot>,
    masks: Masks,
    /// The revision of the first world.
    began: Rev,
    noted: u64,
}

impl Journal {
    /// How many changes are remembered.
    pub const ROOM: usize = 16_384;

    /// Notes what is different in a newer world, or where other nodes are heard, and tells it.
    pub fn note(&mut self, world: &Snapshot, masks: &Masks) -> BTreeSet<Thing> {
        let things = self.last.as_ref().map_or_else(BTreeSet::new, |last| {
            let mut things = changed(last, world);
            let concerned = [(last, &self.masks), (world, masks)];
            things.extend(by_others(concerned, &things));
            things
        });
        if self.last.is_none() {
            // Of the first, nobody can know what is new in it.
            (self.forgotten, self.began) = (world.rev, world.rev);
        }
        let heard = self.rev() == Some(world.rev);
        self.changes.extend(things.iter().map(|thing| (world.rev, heard, thing.clone())));
        self.last = Some(world.clone());
        if self.masks != *masks {
            self.masks = masks.clone();
        }
        self.noted += 1;
        while self.changes.len() > Self::ROOM {
            // A revision is forgotten as a whole.
            let Some((rev, ..)) = self.changes.pop_front() else { break };
            self.forgotten = rev;
            while let Some((_, heard, _)) = self.changes.pop_front_if(|(next, ..)| *next == rev) {
                if heard {
                    // Whoever knows of the revision does not know of these.
                    self.forgotten = Rev(rev.0 + 1);
                }
            }
        }
        things
    }

    /// Up to which revision it knows of all; none: of nothing.
    pub fn rev(&self) -> Option<Rev> {
        self.last.as_ref().map(|last| last.rev)
    }

    /// How often anything was noted.
    pub fn noted(&self) -> u64 {
        self.noted
    }

    /// Who gets no new flows, beside what the records say.
    pub fn masks(&self) -> &Masks {
        &self.masks
    }

    /// Whether it knows all that came after a revision that someone else told: who was heard when it began, it does not.
    pub fn covers(&self, rev: Rev) -> bool {
        rev > self.began
    }

    /// What changed after a revision, and at it where that came later; none: too long ago to know.
    pub fn since(&self, rev: Rev) -> Option<BTreeSet<&Thing>> {
        if rev < self.forgotten || self.last.as_ref().is_none_or(|last| rev > last.rev) {
            return None;
        }
        let from = self.changes.partition_point(|(changed, heard, _)| (*changed, *heard) <= (rev, false));
        Some(self.changes.range(from..).map(|(.., thing)| thing).collect())
    }
}

/// Nodes that are heard no more or again, and tasks that get flows, or no more, by what became of others or is said of
/// them. `changed`: what is different in the records.
fn by_others(both: [(&Snapshot, &Masks); 2], changed: &BTreeSet<Thing>) -> BTreeSet<Thing> {
    let [(old, was), (new, is)] = both;
    let nodes: BTreeSet<NodeId> = keys(diff(&was.nodes, &is.nodes)).collect();
    let tasks: BTreeSet<TaskId> = keys(diff(&was.tasks, &is.tasks)).collect();
    let mut services: BTreeSet<&ServiceId> = changed
        .iter()
        .filter_map(|thing| if let Thing::Service(id) = thing { Some(id) } else { None })
        .filter(|id| !was.is_empty() || !is.is_empty() || turns(old, new, id))
        .collect();
    let there = nodes.iter().flat_map(|node| new.tasks.on(node));
    let there = there.chain(tasks.iter().filter_map(|id| new.tasks.get(id)));
    services.extend(there.filter_map(|task| task.service.as_ref()));
    let serving = |(world, masks): (&Snapshot, &Masks)| Serving::of(world, masks, services.iter().copied());
    let (before, now) = (serving(both[0]), serving(both[1]));
    let mut things: BTreeSet<Thing> = before.differs(&now).cloned().map(Thing::Task).collect();
    things.extend(nodes.into_iter().map(Thing::Node));
    things
}

/// Whether who serves depends on something else now than on each task alone.
fn turns(old: &Snapshot, new: &Snapshot, id: &ServiceId) -> bool {
    let turnout = |world: &Snapshot| Some(world.turnout(world.services.get(id)?, world.tasks.of(id)));
    turnout(old) != turnout(new)
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
