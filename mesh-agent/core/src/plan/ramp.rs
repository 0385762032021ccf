//! **Decision.** Slow start: a task that has just come into the balance gets a part of its share, which grows.
//!
//! Ages count from what the store says ([`Snapshot::in_balance_since`]) and matter in steps only, so that nodes
//! differ for no longer at each step than their clocks do, and their tables are the same in between.

use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Pool};
use crate::maglev::{next_step, slow_start};
use crate::model::{Snapshot, Timestamp};

/// Weights are so many times as large while somebody's is only a part of it: of 1 there are no parts.
const ROOM: u16 = 10;

/// Takes from a service's new backends what they do not get yet. Says when that changes next by itself.
pub(super) fn apply<'a>(
    world: &Snapshot,
    window: Duration,
    now: Timestamp,
    pools: impl Iterator<Item = &'a mut Arc<Pool>>,
) -> Option<Timestamp> {
    if window.is_zero() {
        return None;
    }
    let since =
        |backend: &Backend| world.tasks.get(&backend.id).map_or(0, |task| world.in_balance_since(task));
    pools
        .filter_map(|pool| {
            let sinces: Vec<_> = pool.backends.iter().map(since).collect();
            // What others share stays as it is.
            if alike(&sinces, window) {
                None
            } else {
                weigh(Arc::make_mut(&mut Arc::make_mut(pool).backends), &sinces, window, now)
            }
        })
        .min()
}

fn weigh(
    backends: &mut [Backend],
    sinces: &[Timestamp],
    window: Duration,
    now: Timestamp,
) -> Option<Timestamp> {
    if alike(sinces, window) {
        return None;
    }
    let stages: Vec<Stage> = sinces.iter().map(|since| Stage::of(*since, window, now)).collect();
    let next = stages.iter().filter_map(|stage| stage.next).min()?;
    let largest = backends.iter().map(|backend| backend.weight).max().unwrap_or_default();
    let room = if largest.checked_mul(ROOM).is_some() { ROOM } else { 1 };
    for (backend, stage) in backends.iter_mut().zip(stages) {
        backend.weight = slow_start(backend.weight * room, stage.age, window);
    }
    Some(next)
}

/// Came in within one step: what one did not get the others would, who are as new. And should they go on one after
/// the other, each step would move flows there and back.
fn alike(sinces: &[Timestamp], window: Duration) -> bool {
    let (first, last) = (sinces.iter().min(), sinces.iter().max());
    let step = next_step(Duration::ZERO, window).map_or(0, millis);
    first.zip(last).is_none_or(|(first, last)| last - first < step)
}

/// How far a backend is on its way to its whole share.
struct Stage {
    age: Duration,
    /// When its share changes next; none: it has all of it.
    next: Option<Timestamp>,
}

impl Stage {
    fn of(since: Timestamp, window: Duration, now: Timestamp) -> Self {
        if since.saturating_sub(now) > millis(window) {
            // A clock was wrong when that was written: nobody waits until that time comes.
            return Self { age: window, next: Some(since - millis(window)) };
        }
        let age = Duration::from_millis(now.saturating_sub(since));
        Self { age, next: next_step(age, window).map(|age| since.saturating_add(millis(age))) }
    }
}

/// Whole milliseconds, rounded up: not before it is time.
fn millis(duration: Duration) -> Timestamp {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeId, TaskId};

    const WINDOW: Duration = Duration::from_secs(9);

    fn backends(weights: &[u16]) -> Vec<Backend> {
        let backend = |weight: &u16| Backend {
            id: TaskId::new("t"),
            slot: 1,
            address: [10, 0, 0, 1].into(),
            node: NodeId::new("n"),
            local: true,
            weight: *weight,
        };
        weights.iter().map(backend).collect()
    }

    fn weighed(weights: &[u16], sinces: &[Timestamp], now: Timestamp) -> (Vec<u16>, Option<Timestamp>) {
        let mut backends = backends(weights);
        let next = weigh(&mut backends, sinces, WINDOW, now);
        (backends.iter().map(|backend| backend.weight).collect(), next)
    }

    #[test]
    fn nobody_is_nothing_to_do() {
        assert_eq!(weighed(&[], &[], 0), (vec![], None));
    }

    #[test]
    fn less_than_a_step_apart_is_alike_new() {
        assert_eq!(weighed(&[1, 2], &[20_000, 20_999], 21_000), (vec![1, 2], None));
        assert_eq!(weighed(&[1, 2], &[20_000, 21_000], 21_000), (vec![2, 2], Some(22_000)));
    }

    #[test]
    fn the_greatest_weights_have_room_below_themselves() {
        assert_eq!(weighed(&[u16::MAX, u16::MAX], &[0, 20_000], 20_000).0, [65_535, 6_553]);
        assert_eq!(weighed(&[6_553, 6_553], &[0, 20_000], 20_000).0, [65_530, 6_553]);
    }

    /// The node of a task may be a little ahead of this one, and its task is just new then.
    #[test]
    fn a_moment_to_come_is_now() {
        assert_eq!(weighed(&[1, 1], &[0, 20_000], 19_990), (vec![10, 1], Some(21_000)));
        assert_eq!(weighed(&[1, 1], &[0, 29_000], 20_000), (vec![10, 1], Some(30_000)));
    }

    /// A task that came in next year would have a tenth until then.
    #[test]
    fn a_clock_that_is_far_ahead_counts_for_nothing() {
        assert_eq!(weighed(&[1, 1], &[0, 29_001], 20_000), (vec![10, 10], Some(20_001)));
        assert_eq!(weighed(&[1, 1], &[0, u64::MAX], 20_000), (vec![10, 10], Some(u64::MAX - 9_000)));
    }
}
