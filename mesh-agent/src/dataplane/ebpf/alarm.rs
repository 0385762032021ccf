//! **Decision.** Whether the tables of flows are too small for what goes on. Pure.

use std::time::{Duration, Instant};

use mesh_core::plan::Problem;

/// How long it is told after it last happened: longer than a round takes to come again.
const LATELY: Duration = Duration::from_secs(60);

/// How often a flow found no place, and when that last grew.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// None: nothing was counted yet, and what was counted before is of another agent's time.
    counted: Option<u64>,
    grew: Option<(Instant, u64)>,
}

impl Alarm {
    /// Takes in what is counted now.
    pub(super) fn note(&mut self, count: u64, now: Instant) {
        let more = count.saturating_sub(self.counted.unwrap_or(count));
        if more > 0 {
            self.grew = Some((now, more));
        }
        self.counted = Some(count);
    }

    /// What to tell people.
    pub(super) fn problem(&self, now: Instant) -> Option<Problem> {
        let (at, more) = self.grew?;
        (now.duration_since(at) < LATELY).then(|| Problem {
            about: "flow tables".to_owned(),
            message: format!(
                "are full in places: {more} times a new flow was balanced without being remembered, and may \
                 move when tasks change; `mesh monitor` shows who sends so many"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_alarms_and_only_for_a_while() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut alarm = Alarm::default();
        alarm.note(7, at(0));
        assert_eq!(alarm.problem(at(0)), None);
        alarm.note(7, at(30));
        assert_eq!(alarm.problem(at(30)), None);
        alarm.note(9, at(60));
        assert!(alarm.problem(at(60)).unwrap().message.contains(" 2 times"));
        alarm.note(9, at(90));
        assert!(alarm.problem(at(90)).is_some());
        assert_eq!(alarm.problem(at(120)), None);
    }
}
