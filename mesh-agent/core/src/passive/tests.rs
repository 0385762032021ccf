use super::*;

const LOOK: Duration = Duration::from_millis(100);
/// When the test begins.
const CLOCK: Timestamp = 1_000_000_000;

/// A task under the eyes of a node that looks ten times a second.
struct Watched {
    course: Course,
    counts: Counts,
    now: Duration,
}

fn course(recorded: Option<Ejected>, counts: Counts, age: Duration) -> Course {
    let created = CLOCK - u64::try_from(age.as_millis()).unwrap();
    Course::new(created, recorded, counts, Duration::ZERO, CLOCK)
}

impl Watched {
    /// One that is there for long.
    fn new() -> Self {
        Self::of_age(YOUTH)
    }

    fn of_age(age: Duration) -> Self {
        Self { course: course(None, Counts::default(), age), counts: Counts::default(), now: LOOK }
    }

    /// So many begin, are answered and are refused until the next look.
    fn sees(&mut self, begun: u64, answered: u64, refused: u64) -> Option<(u32, Sickness)> {
        self.counts.begun += begun;
        self.counts.answered += answered;
        self.counts.refused += refused;
        self.now += LOOK;
        let clock = CLOCK + u64::try_from(self.now.as_millis()).unwrap();
        self.course.read(self.counts, self.now, clock);
        self.course.out.map(|(ejected, _)| (ejected.row, ejected.why))
    }

    /// Nothing comes until something is different, or for two minutes; for how long.
    fn waits(&mut self) -> Duration {
        let (start, before) = (self.now, self.course.out.is_some());
        while self.course.out.is_some() == before && self.now - start < Duration::from_secs(120) {
            self.sees(0, 0, 0);
        }
        self.now - start
    }
}

#[test]
fn who_refuses_three_times_and_answers_nobody_is_sick_at_once() {
    let mut task = Watched::new();
    assert_eq!(task.sees(2, 0, 2), None);
    assert_eq!(task.sees(1, 0, 1), Some((1, Sickness::Refuses)));
    let mut task = Watched::new();
    task.counts.unreachable += 3;
    assert_eq!(task.sees(0, 0, 0), Some((1, Sickness::Unreachable)));
}

#[test]
fn one_answer_clears_it() {
    let mut task = Watched::new();
    for _ in 0..100 {
        assert_eq!(task.sees(3, 0, 2), None);
        assert_eq!(task.sees(9, 1, 9), None, "it answers somebody");
    }
}

#[test]
fn who_says_nothing_is_sick_after_a_while() {
    let mut task = Watched::new();
    assert_eq!(task.sees(1, 0, 0), None);
    for _ in 0..5 {
        assert_eq!(task.sees(1, 0, 0), None, "after {:?}", task.now);
    }
    assert_eq!(task.sees(0, 0, 0), Some((1, Sickness::Silent)));
    let mut task = Watched::new();
    assert_eq!(task.sees(2, 0, 0), None);
    assert_eq!(task.waits(), Duration::from_secs(120), "two may have been lost on their way");
}

/// A refusal now and then, by somebody who tries what is not meant for them, is none in a row.
#[test]
fn what_is_long_ago_says_nothing() {
    let mut task = Watched::new();
    for _ in 0..9 {
        assert_eq!(task.sees(1, 0, 1), None);
        assert_eq!(task.sees(1, 0, 1), None);
        task.now += WINDOW;
    }
}

#[test]
fn who_is_sick_again_is_left_out_for_longer_until_that_is_forgotten() {
    let mut task = Watched::new();
    for row in 1..20 {
        assert_eq!(task.sees(3, 0, 3), Some((row, Sickness::Refuses)));
        assert_eq!(task.sees(3, 0, 3), Some((row, Sickness::Refuses)), "others may still try it");
        assert_eq!(task.waits() + LOOK, Duration::from_secs(5) * row.min(12));
        // It is as if nothing had been: three more are needed.
        assert_eq!(task.sees(2, 0, 2), None);
        task.sees(1, 1, 0);
    }
    task.now += FORGIVEN;
    assert_eq!(task.sees(3, 0, 3), Some((1, Sickness::Refuses)));
}

#[test]
fn what_is_recorded_holds_over_a_new_agent() {
    let recorded = Ejected { since: 5, row: 2, why: Sickness::Silent };
    let counts = Counts { begun: 9, answered: 9, refused: 9, unreachable: 9 };
    let mut task = Watched { course: course(Some(recorded), counts, YOUTH), counts, now: Duration::ZERO };
    assert_eq!(task.sees(0, 0, 0), Some((2, Sickness::Silent)));
    assert_eq!(task.waits() + LOOK, 2 * TURN);
    assert_eq!(task.sees(3, 0, 3), Some((3, Sickness::Refuses)));
}

/// A program that is registered before it listens is tried again soon.
#[test]
fn who_only_begins_is_left_out_for_less() {
    let mut task = Watched::of_age(Duration::ZERO);
    for (row, ms) in (1..).zip([500, 1000, 2000, 4000, 5000, 5000]) {
        assert_eq!(task.sees(3, 0, 3), Some((row, Sickness::Refuses)));
        assert_eq!(task.waits(), Duration::from_millis(ms));
    }
    // Now it is old enough to know better, and what was before does not count.
    task.now += YOUTH / 2;
    for row in 1..3 {
        task.now = task.now.max(YOUTH);
        assert_eq!(task.sees(3, 0, 3), Some((row, Sickness::Refuses)));
        assert_eq!(task.waits(), TURN * row);
    }
}

#[test]
fn who_has_answered_does_not_begin() {
    let mut task = Watched::of_age(Duration::ZERO);
    assert_eq!(task.sees(1, 1, 0), None);
    assert_eq!(task.sees(3, 0, 3), Some((1, Sickness::Refuses)));
    assert_eq!(task.waits(), TURN);
}

/// Also for an agent that starts anew.
#[test]
fn what_is_recorded_of_a_young_one_holds_for_less() {
    let recorded = Ejected { since: 5, row: 2, why: Sickness::Refuses };
    let course = course(Some(recorded), Counts::default(), Duration::ZERO);
    let mut task = Watched { course, counts: Counts::default(), now: Duration::ZERO };
    task.sees(0, 0, 0);
    assert_eq!(task.waits() + LOOK, 2 * YOUNG_TURN);
}
