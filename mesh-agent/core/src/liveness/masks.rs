//! **Decision.** Who gets no new flows, beside what the records say: nodes and single tasks, and why.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Detector, Echoes, Hints, Millis, Notice, Verdict};
use crate::model::{NodeId, Service, Snapshot, Task, TaskId, Turnout};

/// A mask only takes away, and only new flows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masks {
    /// Nodes.
    pub nodes: BTreeMap<NodeId, Verdict>,
    /// Tasks of which their nodes say what their records do not say yet.
    pub tasks: BTreeMap<TaskId, Notice>,
    /// Nodes that managers agree are dead, and that answer this node all the same: no masks, but what it has to say.
    pub heard: BTreeSet<NodeId>,
}

impl From<BTreeMap<NodeId, Verdict>> for Masks {
    fn from(nodes: BTreeMap<NodeId, Verdict>) -> Self {
        Self { nodes, ..Self::default() }
    }
}

impl Masks {
    /// Whether all is as the records say.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.tasks.is_empty()
    }

    /// Who of a service's tasks is left out by a node that does not hear these.
    pub fn turnout(&self, world: &Snapshot, service: &Service, tasks: &[Arc<Task>]) -> Turnout {
        world.turnout_where_heard(service, tasks, |node| !self.nodes.contains_key(node))
    }

    /// Tasks as their nodes say that they are.
    pub fn noted<'a>(&self, tasks: &'a [Arc<Task>]) -> Cow<'a, [Arc<Task>]> {
        if self.tasks.is_empty() || !tasks.iter().any(|task| self.tasks.contains_key(&task.id)) {
            return Cow::Borrowed(tasks);
        }
        let noted = |task: &Arc<Task>| match self.tasks.get(&task.id) {
            Some(notice) => Arc::new(notice.of(task)),
            None => Arc::clone(task),
        };
        tasks.iter().map(noted).collect()
    }
}

/// Who is dead, as managers agree, and is heard all the same.
pub fn heard(world: &Snapshot, underlay: &Detector) -> BTreeSet<NodeId> {
    world.down_nodes().filter(|id| underlay.verdict(id) == Some(Verdict::Up)).cloned().collect()
}

/// What masks others, all in all; of several reasons the one that says most.
///
/// What a node sees itself comes before what managers agree on: flows go from here to there, so whoever is heard here
/// is not dead for us.
pub fn masks(
    world: &Snapshot,
    underlay: &Detector,
    tunnels: &Detector,
    hints: &Hints,
    echoes: &Echoes,
    now: Millis,
) -> BTreeMap<NodeId, Verdict> {
    let mut all: BTreeMap<_, _> =
        tunnels.masks().keys().map(|id| (id.clone(), Verdict::TunnelDown)).collect();
    all.extend(underlay.masks().clone());
    for id in world.down_nodes() {
        let heard = matches!(underlay.verdict(id), Some(Verdict::Up | Verdict::Suspect));
        if !heard && !underlay.is_alone() {
            all.entry(id.clone()).or_insert(Verdict::AgreedDown);
        }
    }
    // Where the record says so, too, it is the record that counts.
    let said = hints.leaving().filter(|id| world.nodes.contains_key(*id) && !world.is_withdrawn(id));
    all.extend(said.map(|id| (id.clone(), Verdict::Leaving)));
    all.extend(echoes.rebooted(world, now).map(|id| (id.clone(), Verdict::Rebooted)));
    all
}
