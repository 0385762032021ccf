//! **Decision.** Which tasks get new flows by one node, of all that is known of them and of whom it hears.

use std::collections::BTreeSet;

use crate::explain::why_not;
use crate::liveness::{Masks, Verdict};
use crate::model::{ServiceId, Snapshot, Task, TaskId};
use crate::plan::leave_out;

/// The tasks of some services that get new flows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving(BTreeSet<TaskId>);

impl Serving {
    /// Those of services by a node that knows more than the records say.
    pub fn of<'a>(
        world: &Snapshot,
        masks: &Masks,
        services: impl IntoIterator<Item = &'a ServiceId>,
    ) -> Self {
        let mut all = BTreeSet::new();
        for service in services.into_iter().filter_map(|id| world.services.get(id)) {
            let tasks = &*masks.noted(world.tasks.of(&service.id));
            let turnout = masks.turnout(world, service, tasks);
            let mut serving: Vec<_> = tasks.iter().filter(|task| world.serves(task, &turnout)).collect();
            leave_out(&masks.nodes, &mut serving, |task| &task.node);
            all.extend(serving.into_iter().map(|task| task.id.clone()));
        }
        Self(all)
    }

    /// Whether a task is one of them; one without a service speaks for itself.
    pub fn has(&self, world: &Snapshot, task: &Task) -> bool {
        let known = task.service.as_ref().is_some_and(|id| world.services.contains_key(id));
        if known { self.0.contains(&task.id) } else { world.in_balance(task) }
    }

    /// Those that are one's and not the other's.
    pub fn differs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a TaskId> {
        self.0.symmetric_difference(&other.0)
    }
}

/// Why a task that gets no new flows gets none, in words.
pub fn why_not_here(world: &Snapshot, masks: &Masks, task: &Task) -> String {
    let name = || world.nodes.get(&task.node).map_or("", |node| node.name.as_str());
    // Once the record says it, it says more.
    if let Some(notice) = masks.tasks.get(&task.id).filter(|_| world.in_balance(task)) {
        return format!("it {}, as its node says", notice.words());
    }
    match masks.nodes.get(&task.node).filter(|_| world.in_balance(task)) {
        Some(Verdict::Leaving) => format!("its node {} leaves", name()),
        Some(_) => format!("its node {} does not answer this one", name()),
        None => why_not(world, task),
    }
}
