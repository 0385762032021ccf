//! **Effect.** Asks this node's tasks whether they can serve, and writes down what came of it.
//!
//! What follows from outcomes is in `mesh_core::health`. Only what changes is written, so that a thousand tasks which stay as
//! they are cost the store nothing.

mod probe;
mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::change::TaskChange;
use mesh_core::health::{Course, History, Probed};
use mesh_core::model::{Health, HealthCheck, Snapshot, Task, TaskId, TaskState};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::probe::Answer;
use crate::control::{Control, now};
use crate::tasks::Tasks;

/// What is at work, by task; without a check it ends what a former one said.
type Running = BTreeMap<TaskId, (Option<HealthCheck>, AbortHandle)>;

/// What the last probes of this node's tasks said. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Histories(Arc<Mutex<BTreeMap<TaskId, History>>>);

impl Histories {
    /// Of one task; none: nothing has asked it yet.
    pub fn of(&self, id: &TaskId) -> Option<History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<TaskId, History>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Watches over the health of this node's tasks until told to stop.
pub async fn run(control: Control, tasks: Tasks, histories: Histories, stop: CancellationToken) {
    let mut worlds = control.worlds();
    let mut running = Running::new();
    let mut at_work: JoinSet<()> = JoinSet::new();
    let work = async {
        loop {
            let world = Arc::clone(&worlds.borrow_and_update());
            settle(&world, &control, &tasks, &histories, &mut running, &mut at_work);
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
    histories: &Histories,
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
    histories.change(|all| all.retain(|id, _| running.contains_key(id)));
    tasks.bell().keep_sick(|id| running.get(id).is_some_and(|(check, _)| check.is_some()));
    for (id, (task, check)) in wanted {
        if running.contains_key(id) {
            continue;
        }
        let handle = match check.cloned() {
            Some(check) => {
                let (tasks, histories) = (tasks.clone(), histories.clone());
                let patient = Patient { tasks, worlds: control.worlds(), histories, id: id.clone() };
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
    histories: Histories,
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
            let start = now();
            let asked = tokio::time::timeout(check.timeout, probe::probe(&check.probe, &task)).await;
            let Answer { failure, exit_code, output } = asked.unwrap_or_else(|_| {
                let why = format!("no answer within {:?}", check.timeout);
                Answer { exit_code: -1, ..Answer::failed(why) }
            });
            let age = Duration::from_millis(now().saturating_sub(created));
            course.probed(&check, failure.is_none(), age);
            let Some(task) = self.task() else { return };
            let probed = Probed { start, end: now(), exit_code, output };
            self.histories
                .change(|all| all.entry(self.id.clone()).or_default().note(probed, course.failures()));
            self.tasks.bell().sick(&self.id, course.health() == Health::Unhealthy);
            if task.health != course.health() {
                let message = match &failure {
                    Some(why) => format!("health check {}: {why}", check.probe),
                    None => String::new(),
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
