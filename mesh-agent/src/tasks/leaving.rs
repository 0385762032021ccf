//! **Fact.** How many connections tasks still have that get no new ones: what people wait for.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::model::{Origin, TaskId, TaskState};
use tokio_util::sync::CancellationToken;

use super::{Tasks, flows};

/// How often to count.
const LOOK: Duration = Duration::from_millis(300);
/// So many tasks are counted; a sign of life must stay small.
const MOST: usize = 1000;

impl Tasks {
    /// Counts until told to stop.
    pub async fn count(self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick() => {}
            }
            let leaving = self.leaving();
            let count = move || -> BTreeMap<TaskId, u64> {
                leaving.into_iter().filter_map(|(id, origin)| Some((id, flows::count(&origin)?))).collect()
            };
            // Tables of sockets can be long.
            let Ok(connections) = tokio::task::spawn_blocking(count).await else { continue };
            self.tell(|told| told.connections = connections);
        }
    }

    fn leaving(&self) -> Vec<(TaskId, Origin)> {
        let Ok(me) = self.me() else { return Vec::new() };
        let world = self.control.world();
        let own = world.tasks.on(&me.id).iter().filter(|task| task.state == TaskState::Running);
        let leaving = own.filter(|task| world.is_leaving(task));
        leaving.take(MOST).map(|task| (task.id.clone(), task.origin.clone())).collect()
    }
}
