//! **Decision.** Which tasks are told to stop, and how far a replacement is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Crew, Spread, superfluous};
use crate::change::{Change, Refusal};
use crate::kv::{Compare, Txn};
use crate::model::{
    FailureAction, NodeId, Program, Rollout, RolloutState, Service, ServiceId, Snapshot, Task, TaskId,
    Timestamp, UpdateOrder,
};
use crate::records;

/// As many are told to stop in one transaction.
const AT_ONCE: usize = 100;
/// For so long a task of a drained node is kept until another serves in its stead; then the operator's will counts.
const HANDOVER: Duration = Duration::from_mins(5);

/// The next step for a service: the tasks that are told to stop. Nothing to commit when all is as it should be.
pub fn conduct(
    world: &Snapshot,
    service: &ServiceId,
    now: Timestamp,
    lost: &BTreeSet<NodeId>,
) -> Result<Change<Vec<TaskId>>, Refusal> {
    let mut txn = Txn::default();
    let none = Change { txn: Txn::default(), result: Vec::new() };
    let Some(service) = world.services.get(service) else { return Ok(none) };
    let Some(program) = &service.program else { return Ok(none) };
    let crew = Crew::of(world, service, program, lost);
    let next = judge(world, service, program, &crew, now, lost);
    let mut stops = relieved(world, service, program, &crew, now);
    if next.is_none() {
        let surplus = crew.len().saturating_sub(program.replicas as usize + crew.surge(program));
        stops.extend(superfluous(world, program, &crew, surplus));
        for task in replaced(world, program, &crew, now) {
            if !stops.iter().any(|known| known.id == task.id) {
                stops.push(task);
            }
        }
    }
    stops.truncate(AT_ONCE);
    if stops.is_empty() && next.is_none() {
        return Ok(none);
    }
    let key = records::service(&service.id);
    txn.unchanged(&key, world.rev_of(&key));
    // Two who do this at once must not both have their way.
    let guard = records::replicas_guard(&service.id);
    txn.unchanged(&guard, world.rev_of(&guard));
    txn.put(guard, now.to_string());
    if let Some(program) = next {
        let service = Service { program: Some(program), updated: now, ..service.as_ref().clone() };
        txn.put(key, records::to_json(&service));
    }
    for task in &stops {
        txn.compares.push(Compare::Exists(records::task(&task.id)));
        txn.put(records::stop(&task.id), "{}");
    }
    Ok(Change { txn, result: stops.into_iter().map(|task| task.id.clone()).collect() })
}

/// Tasks of drained nodes that are not to serve until others do, or in whose stead others serve.
fn relieved<'a>(
    world: &Snapshot,
    service: &Service,
    program: &Program,
    crew: &Crew<'a>,
    now: Timestamp,
) -> Vec<&'a Task> {
    if !program.hands_over() || !Spread::of(world, service, crew).has_room() {
        return crew.stranded.clone();
    }
    let drained = |task: &Task| world.specs.get(&task.node).map_or(0, |spec| spec.drained);
    let waits = |task: &Task| u128::from(now.saturating_sub(drained(task))) < HANDOVER.as_millis();
    let (waiting, mut gone): (Vec<_>, Vec<_>) =
        crew.stranded.iter().partition(|task| world.in_balance(task) && waits(task));
    let elsewhere = crew.current.iter().chain(&crew.outdated).filter(|task| world.in_balance(task)).count();
    let spare = (elsewhere + waiting.len()).saturating_sub(program.replicas as usize);
    gone.extend(waiting.into_iter().take(spare));
    gone
}

/// Outdated tasks whose turn it is.
fn replaced<'a>(world: &Snapshot, program: &Program, crew: &Crew<'a>, now: Timestamp) -> Vec<&'a Task> {
    let since = crew.current.iter().map(|task| world.in_balance_since(task)).max();
    let delay = u64::try_from(program.update.delay.as_millis()).unwrap_or(u64::MAX);
    if program.is_paused() || since.is_some_and(|since| now < since.saturating_add(delay)) {
        return Vec::new();
    }
    let serving = crew.current.iter().filter(|task| world.in_balance(task)).count() + crew.outdated.len();
    let wanted = program.replicas as usize;
    let turn = match program.update.order {
        // As many may be missing at once.
        UpdateOrder::StopFirst => program.parallelism().saturating_sub(wanted.saturating_sub(serving)),
        // As many as new ones serve in their place.
        UpdateOrder::StartFirst => serving.saturating_sub(wanted),
    };
    let mut outdated = crew.outdated.clone();
    outdated.sort_by_key(|task| (world.in_balance(task), task.slot));
    outdated.truncate(turn);
    outdated
}

/// The program as it goes on, where a new task failed, or all are replaced.
fn judge(
    world: &Snapshot,
    service: &Service,
    program: &Program,
    crew: &Crew<'_>,
    now: Timestamp,
    lost: &BTreeSet<NodeId>,
) -> Option<Program> {
    let rollout = program.rollout.as_ref().filter(|rollout| rollout.state.is_under_way())?;
    let forward = rollout.state == RolloutState::Updating;
    if let Some(why) = failure(world, service, program, crew, lost)
        && program.update.failure_action != FailureAction::Continue
    {
        let previous = program.previous.clone().filter(|_| forward);
        return Some(match (program.update.failure_action, previous) {
            (FailureAction::Rollback, Some(run)) => Program {
                version: program.version + 1,
                run,
                previous: None,
                rollout: Some(Rollout {
                    state: RolloutState::RollbackStarted,
                    started: now,
                    completed: 0,
                    message: format!("update rolled back due to failure or early termination of {why}"),
                }),
                ..program.clone()
            },
            _ => {
                let (state, what) = if forward {
                    (RolloutState::Paused, "update")
                } else {
                    (RolloutState::RollbackPaused, "rollback")
                };
                let message = format!("{what} paused due to failure or early termination of {why}");
                at(program, Rollout { state, completed: 0, message, ..rollout.clone() })
            }
        });
    }
    let serving = crew.current.iter().filter(|task| world.in_balance(task)).count();
    let since = crew.current.iter().map(|task| world.in_balance_since(task)).max().unwrap_or_default();
    let monitor = u64::try_from(program.update.monitor.as_millis()).unwrap_or(u64::MAX);
    let replaced = crew.outdated.is_empty() && serving >= program.replicas as usize;
    if !replaced || now < since.saturating_add(monitor) {
        return None;
    }
    let (state, message) = if forward {
        (RolloutState::Completed, "update completed")
    } else {
        (RolloutState::RollbackCompleted, "rollback completed")
    };
    Some(at(program, Rollout { state, completed: now, message: message.to_owned(), ..rollout.clone() }))
}

fn at(program: &Program, rollout: Rollout) -> Program {
    Program { rollout: Some(rollout), ..program.clone() }
}

/// What failed of the present version.
fn failure(
    world: &Snapshot,
    service: &Service,
    program: &Program,
    crew: &Crew<'_>,
    lost: &BTreeSet<NodeId>,
) -> Option<String> {
    let ended = world.live.iter().filter(|(id, _)| !lost.contains(*id)).find_map(|(id, live)| {
        let failure = live.failures.get(&service.id).filter(|f| f.version == program.version)?;
        let node = world.nodes.get(id)?;
        Some(format!("a task on node {}: {}", node.name, failure.message))
    });
    let sick = || {
        let unhealthy = |task: &&&Task| task.health == crate::model::Health::Unhealthy;
        let task = crew.current.iter().find(unhealthy)?;
        Some(format!("task {}: is unhealthy", world.task_name(task)))
    };
    ended.or_else(sick)
}
