use super::*;

const LOOK: Duration = Duration::from_millis(100);

/// A task under the eyes of a node that looks ten times a second.
struct Watched {
    course: Course,
    counts: Counts,
    now: Duration,
}

impl Watched {
    fn new() -> Self {
        Self {
            course: Course::new(None, Counts::default(), Duration::ZERO),
            counts: Counts::default(),
            now: LOOK,
        }
    }

    /// So many begin, are answered and are refused until the next look.
    fn sees(&mut self, begun: u64, answered: u64, refused: u64) -> Option<(u32, Sickness)> {
        self.counts.begun += begun;
        self.counts.answered += answered;
        self.counts.refused += refused;
        self.now += LOOK;
        self.course.read(self.counts, self.now, 7);
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
    let course = Course::new(Some(recorded), counts, Duration::ZERO);
    let mut task = Watched { course, counts, now: Duration::ZERO };
    assert_eq!(task.sees(0, 0, 0), Some((2, Sickness::Silent)));
    assert_eq!(task.waits() + LOOK, 2 * TURN);
    assert_eq!(task.sees(3, 0, 3), Some((3, Sickness::Refuses)));
}
