//! **Effect.** Watches what this node's tasks make of connections, and writes down who is sick by it.
//!
//! What follows from what was counted is in `mesh_core::passive`. Where nothing is counted, what a former agent wrote down
//! ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::TaskChange;
use mesh_core::model::{Ejected, TaskId};
use mesh_core::passive::{Judge, judged};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::{Control, now};
use crate::dataplane::ebpf::Signs;
use crate::tasks::Tasks;

/// How often it looks. A look at a task costs a read of memory.
const LOOK: Duration = Duration::from_millis(100);
/// After a change that could not be written down, for its task.
const PAUSE: Duration = Duration::from_secs(2);

/// Watches until told to stop.
pub async fn run(mut signs: Option<Signs>, control: Control, tasks: Tasks, stop: CancellationToken) {
    let mut worlds = control.worlds();
    worlds.mark_changed();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = Instant::now();
    let (mut judge, mut counts) = (Judge::default(), BTreeMap::new());
    let mut writing = BTreeSet::new();
    let mut at_work: JoinSet<TaskId> = JoinSet::new();
    while stop.run_until_cancelled(look.tick()).await.is_some() {
        while let Some(ended) = at_work.try_join_next() {
            ended.into_iter().for_each(|id| _ = writing.remove(&id));
        }
        let changed = worlds.has_changed().unwrap_or_default();
        let world = Arc::clone(&worlds.borrow_and_update());
        if changed {
            let judged = judged(&world, control.node());
            if let Some(Err(error)) = signs.as_mut().map(|signs| signs.count(&judged)) {
                warn!(error = error.in_full(), "what some tasks make of connections is not seen");
            }
            counts = judged.into_iter().map(|(id, places)| (id, (!places.is_empty(), None))).collect();
        }
        for (id, (counted, count)) in &mut counts {
            *count = signs.as_ref().filter(|_| *counted).and_then(|signs| signs.of(id));
        }
        let counts = counts.iter().map(|(id, (_, count))| (id, *count));
        for (id, ejected) in judge.round(&world, counts, start.elapsed(), now()) {
            if writing.insert(id.clone()) {
                let (tasks, name) = (tasks.clone(), world.tasks.get(&id).map(|task| world.task_name(task)));
                at_work.spawn(note(tasks, id, name.unwrap_or_default(), ejected));
            }
        }
    }
}

/// Writes one change down, and tells which task is free for another.
async fn note(tasks: Tasks, id: TaskId, name: String, ejected: Option<Ejected>) -> TaskId {
    let change = TaskChange { ejected: Some(ejected), ..TaskChange::default() };
    match (tasks.change(&id, change).await, ejected) {
        (Ok(_), Some(ejected)) => {
            info!(task = name, row = ejected.row, "ejected: {}", ejected.why.words());
        }
        (Ok(_), None) => info!(task = name, "is let in again"),
        (Err(error), _) => {
            warn!(task = name, %error, "cannot write down whether a task is left out");
            tokio::time::sleep(PAUSE).await;
        }
    }
    id
}
