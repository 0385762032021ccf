//! **Effect.** Asks this node's tasks whether they can serve, and writes down what came of it.
//!
//! What follows from outcomes is in `mesh_core::health`. Only what changes is written, so that a thousand tasks which stay as
//! they are cost the store nothing.

mod probe;
mod tls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::TaskChange;
use mesh_core::health::Course;
use mesh_core::model::{Health, HealthCheck, Snapshot, Task, TaskId, TaskState};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::control::{Control, now};
use crate::tasks::Tasks;

/// What is at work, by task; without a check it ends what a former one said.
type Running = BTreeMap<TaskId, (Option<HealthCheck>, AbortHandle)>;

/// Watches over the health of this node's tasks until told to stop.
pub async fn run(control: Control, tasks: Tasks, stop: CancellationToken) {
    let mut worlds = control.worlds();
    let mut running = Running::new();
    let mut at_work: JoinSet<()> = JoinSet::new();
    let work = async {
        loop {
            let world = Arc::clone(&worlds.borrow_and_update());
            settle(&world, &control, &tasks, &mut running, &mut at_work);
            if worlds.changed().await.is_err() {
                return;
            }
            // Those that ended by themselves or were told to.
            while at_work.try_join_next().is_some() {}
        }
    };
    // With the set, all that is in it ends.
    stop.run_until_cancelled(work).await;
}

/// Begins checks that are not running as they should, and ends those that should not.
fn settle(
    world: &Snapshot,
    control: &Control,
    tasks: &Tasks,
    running: &mut Running,
    at_work: &mut JoinSet<()>,
) {
    let own = world.tasks.on(control.node()).iter();
    let wanted: BTreeMap<&TaskId, (&Arc<Task>, Option<&HealthCheck>)> = own
        .map(|task| (&task.id, (task, check_of(world, task))))
        .filter(|(_, (task, check))| match check {
            Some(_) => task.state == TaskState::Running,
            None => task.checked,
        })
        .collect();
    running.retain(|id, (check, handle)| {
        let stays =
            wanted.get(id).is_some_and(|(_, wanted)| *wanted == check.as_ref()) && !handle.is_finished();
        if !stays {
            handle.abort();
        }
        stays
    });
    for (id, (task, check)) in wanted {
        if running.contains_key(id) {
            continue;
        }
        let handle = match check.cloned() {
            Some(check) => {
                let patient = Patient { tasks: tasks.clone(), worlds: control.worlds(), id: id.clone() };
                at_work.spawn(patient.watch(check, task.health, task.created))
            }
            // Nothing checks it any more: it serves while it runs.
            None => {
                let (tasks, id) = (tasks.clone(), id.clone());
                at_work.spawn(async move { note(&tasks, &id, Health::None, String::new()).await })
            }
        };
        running.insert(id.clone(), (check.cloned(), handle));
    }
}

fn check_of<'a>(world: &'a Snapshot, task: &Task) -> Option<&'a HealthCheck> {
    world.services.get(task.service.as_ref()?)?.health.as_ref()
}

/// A task that is asked.
struct Patient {
    tasks: Tasks,
    worlds: watch::Receiver<Arc<Snapshot>>,
    id: TaskId,
}

impl Patient {
    /// Asks again and again, until it is gone.
    async fn watch(self, check: HealthCheck, recorded: Health, created: u64) {
        let mut course = Course::new(recorded);
        // Each at a moment of its own: an agent that starts finds many.
        let mut wait =
            if recorded == Health::Starting { Duration::ZERO } else { course.wait(&check, random()) };
        wait = wait.mul_f64(f64::from(random()) / f64::from(u32::MAX));
        loop {
            tokio::time::sleep(wait).await;
            let Some(task) = self.task() else { return };
            let outcome = match tokio::time::timeout(check.timeout, probe::probe(&check.probe, &task)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {:?}", check.timeout)),
            };
            let age = Duration::from_millis(now().saturating_sub(created));
            course.probed(&check, outcome.is_ok(), age);
            let Some(task) = self.task() else { return };
            if task.health != course.health() {
                let message = match &outcome {
                    Err(why) => format!("health check {}: {why}", check.probe),
                    Ok(()) => String::new(),
                };
                note(&self.tasks, &self.id, course.health(), message).await;
            }
            wait = course.wait(&check, random());
        }
    }

    fn task(&self) -> Option<Arc<Task>> {
        self.worlds.borrow().tasks.get(&self.id).cloned()
    }
}

/// Writes a task's health down. If that fails, it is tried again after the next probe.
async fn note(tasks: &Tasks, id: &TaskId, health: Health, message: String) {
    let said = Some(message.clone());
    let change = TaskChange { health: Some(health), checked: true, message: said, ..TaskChange::default() };
    match tasks.change(id, change).await {
        Ok(done) => info!(task = done.result.id.short(), ?health, message, "health"),
        Err(error) => warn!(task = id.short(), ?health, %error, "cannot write down a task's health"),
    }
}

/// Only fairness hangs on it.
fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}
