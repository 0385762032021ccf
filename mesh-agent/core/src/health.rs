//! **Decision.** What follows from the outcomes of a task's health check, and when it is asked next. Pure: outcomes, times
//! and randomness are handed in.
//!
//! Ready is not alive: a task that fails gets no new flows, keeps those that it has, and is back as soon as it succeeds.
//! Nothing is killed.

mod history;

use std::time::Duration;

pub use history::{History, Probed};

use crate::model::{Health, HealthCheck};

/// What is known of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    health: Health,
    failures: u32,
    successes: u32,
}

impl Course {
    /// Of a task whose health is recorded as this. [`Health::None`]: it serves, and the check is new.
    pub fn new(recorded: Health) -> Self {
        Self { health: recorded, failures: 0, successes: 0 }
    }

    /// Now.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A probe has ended, of a task that began so long ago.
    pub fn probed(&mut self, check: &HealthCheck, success: bool, age: Duration) {
        if success {
            (self.failures, self.successes) = (0, self.successes.saturating_add(1));
            if self.health != Health::Unhealthy || self.successes >= check.rise {
                self.health = Health::Healthy;
            }
            return;
        }
        self.successes = 0;
        if self.health == Health::Starting && age < check.start_period {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= check.retries {
            self.health = Health::Unhealthy;
        }
    }

    /// How long to wait before the next probe. `random` is of 2^32 and makes it up to a tenth shorter, so that tasks which
    /// began together are not asked together for ever.
    pub fn wait(&self, check: &HealthCheck, random: u32) -> Duration {
        let whole = match self.health {
            Health::Starting => check.start_interval.min(check.interval),
            Health::None | Health::Healthy | Health::Unhealthy => check.interval,
        };
        whole - whole.mul_f64(f64::from(random) / f64::from(u32::MAX) / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Probe;

    const S: Duration = Duration::from_secs(1);

    fn check() -> HealthCheck {
        HealthCheck { rise: 2, start_period: 10 * S, ..HealthCheck::new(Probe::Tcp { port: 80 }) }
    }

    fn after(recorded: Health, outcomes: &[(bool, u32)]) -> Health {
        let mut course = Course::new(recorded);
        for (success, age) in outcomes {
            course.probed(&check(), *success, *age * S);
        }
        course.health()
    }

    #[test]
    fn a_task_that_starts_is_healthy_with_its_first_success() {
        assert_eq!(after(Health::Starting, &[]), Health::Starting);
        assert_eq!(after(Health::Starting, &[(false, 1), (true, 2)]), Health::Healthy);
    }

    #[test]
    fn failures_count_once_the_start_period_is_over() {
        let early = [(false, 1), (false, 5), (false, 9), (false, 9)];
        assert_eq!(after(Health::Starting, &early), Health::Starting);
        let late = [(false, 11), (false, 12)];
        assert_eq!(after(Health::Starting, &[&early[..], &late].concat()), Health::Starting);
        assert_eq!(after(Health::Starting, &[&late[..], &[(false, 13)]].concat()), Health::Unhealthy);
        // It has succeeded once: now they count at any age.
        let thrice = [(true, 1), (false, 2), (false, 3), (false, 4)];
        assert_eq!(after(Health::Starting, &thrice), Health::Unhealthy);
    }

    #[test]
    fn a_sick_task_must_succeed_in_a_row() {
        let unhealthy = Health::Unhealthy;
        assert_eq!(after(unhealthy, &[(true, 99), (false, 99), (true, 99)]), unhealthy);
        assert_eq!(after(unhealthy, &[(true, 99), (true, 99)]), Health::Healthy);
    }

    /// A check that is new does not take away what serves.
    #[test]
    fn who_served_unchecked_serves_until_it_fails() {
        assert_eq!(after(Health::None, &[(false, 99), (false, 99)]), Health::None);
        assert_eq!(after(Health::None, &[(false, 99), (false, 99), (false, 99)]), Health::Unhealthy);
    }

    #[test]
    fn who_starts_is_asked_more_often_and_nobody_at_the_same_time() {
        let wait = |health, random| Course::new(health).wait(&check(), random);
        assert_eq!(wait(Health::Starting, 0), 5 * S);
        assert_eq!(wait(Health::Healthy, 0), 30 * S);
        assert_eq!(wait(Health::Healthy, u32::MAX), 27 * S);
    }

    proptest! {
        /// Whatever happens: out after as many failures in a row as were asked for and not before, and in again after
        /// as many successes.
        #[test]
        fn only_what_is_in_a_row_counts(outcomes in prop::collection::vec(any::<bool>(), 1..60)) {
            let mut course = Course::new(Health::Healthy);
            let (mut failures, mut successes) = (0, 0);
            for success in outcomes {
                let before = course.health();
                course.probed(&check(), success, 60 * S);
                (failures, successes) = if success { (0, successes + 1) } else { (failures + 1, 0) };
                let expected = match before {
                    Health::Healthy if failures == 3 => Health::Unhealthy,
                    Health::Unhealthy if successes >= 2 => Health::Healthy,
                    same => same,
                };
                prop_assert_eq!(course.health(), expected);
            }
        }
    }
}
