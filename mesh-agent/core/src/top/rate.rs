//! **Decision.** What tasks get in a second, of what was counted at two moments.

use std::collections::BTreeMap;
use std::iter::Sum;

use super::look::{Counts, Look};

/// What a task gets, or several together; none: nobody knows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// New flows in a second.
    pub flows: Option<f64>,
    /// Bytes in a second.
    pub bytes: Option<f64>,
    /// Packets in a second.
    pub packets: Option<f64>,
    /// Flows that there are.
    pub active: Option<u64>,
}

/// Of each task that something is known of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates(BTreeMap<String, Rate>);

impl Rates {
    /// Between two looks; before the second one only how many flows there are is known.
    pub fn between(before: Option<&Look>, after: &Look) -> Self {
        let Some(now) = &after.counted else { return Self::default() };
        let then = before.and_then(|look| look.counted.as_ref());
        // A clock that went back is another machine's, or that of another start.
        let apart = then.and_then(|then| now.at.checked_sub(then.at)).filter(|apart| !apart.is_zero());
        let known = |id: &str| before.is_some_and(|look| look.tasks.iter().any(|task| task.id == id));
        let rates = now.tasks.iter().map(|(id, counts)| {
            let began = then.and_then(|then| match then.tasks.get(id) {
                Some(counts) => Some(*counts),
                // One that came since then began at nothing; of one that was there before nobody knows.
                None => (!known(id)).then(Counts::default),
            });
            let rate = match (began, apart) {
                (Some(began), Some(apart)) => Rate::of(&began, counts, apart.as_secs_f64()),
                _ => Rate::default(),
            };
            (id.clone(), Rate { active: Some(counts.active), ..rate })
        });
        Self(rates.collect())
    }

    /// Of a task.
    pub fn of(&self, task: &str) -> Rate {
        self.0.get(task).copied().unwrap_or_default()
    }
}

impl Rate {
    /// Counters that fell began anew in between: what came before that is lost, so nothing is known of this time.
    fn of(then: &Counts, now: &Counts, seconds: f64) -> Self {
        let more = |then: u64, now: u64| now.checked_sub(then).map(|more| more as f64 / seconds);
        let each =
            (more(then.flows, now.flows), more(then.bytes, now.bytes), more(then.packets, now.packets));
        match each {
            (flows @ Some(_), bytes @ Some(_), packets @ Some(_)) => {
                Self { flows, bytes, packets, active: None }
            }
            _ => Self::default(),
        }
    }
}

/// What is not known adds nothing, and is the sum where nothing else is.
impl Sum for Rate {
    fn sum<I: Iterator<Item = Self>>(rates: I) -> Self {
        fn add<T: std::ops::Add<Output = T>>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            }
        }
        rates.fold(Self::default(), |sum, rate| Self {
            flows: add(sum.flows, rate.flows),
            bytes: add(sum.bytes, rate.bytes),
            packets: add(sum.packets, rate.packets),
            active: add(sum.active, rate.active),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::look::{Counted, Task};
    use super::*;

    fn look(at: u64, tasks: &[&str], counted: &[(&str, u64)]) -> Look {
        let tasks = tasks.iter().map(|id| Task { id: (*id).to_owned(), ..Task::default() });
        let counts = |n: u64| Counts { flows: n, packets: 3 * n, bytes: 100 * n, active: n / 2 };
        let counted = counted.iter().map(|(id, n)| ((*id).to_owned(), counts(*n)));
        Look {
            tasks: tasks.collect(),
            counted: Some(Counted { at: Duration::from_millis(at), tasks: counted.collect() }),
            ..Look::default()
        }
    }

    fn flows(before: Option<&Look>, after: &Look) -> Option<f64> {
        Rates::between(before, after).of("a").flows
    }

    #[test]
    fn two_looks_make_a_rate() {
        let before = look(1_000, &["a"], &[("a", 10)]);
        let after = look(3_000, &["a"], &[("a", 30)]);
        let rate = Rates::between(Some(&before), &after).of("a");
        let expected =
            Rate { flows: Some(10.0), bytes: Some(1_000.0), packets: Some(30.0), active: Some(15) };
        assert_eq!(rate, expected);
        assert_eq!(flows(Some(&before), &look(2_000, &["a"], &[("a", 10)])), Some(0.0));
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let after = look(3_000, &["a"], &[("a", 30)]);
        // The first look of all.
        let first = Rates::between(None, &after).of("a");
        assert_eq!(first, Rate { active: Some(15), ..Rate::default() });
        // Counters that began anew, a clock that did, and no time between.
        assert_eq!(flows(Some(&look(1_000, &["a"], &[("a", 31)])), &after), None);
        assert_eq!(flows(Some(&look(4_000, &["a"], &[("a", 10)])), &after), None);
        assert_eq!(flows(Some(&look(3_000, &["a"], &[("a", 10)])), &after), None);
        // A task that was there and not counted, one that nobody counts, and a plane that counts nothing.
        assert_eq!(flows(Some(&look(1_000, &["a"], &[])), &after), None);
        assert_eq!(Rates::between(Some(&after), &after).of("b"), Rate::default());
        let nothing = Look { counted: None, ..after.clone() };
        assert_eq!(Rates::between(Some(&after), &nothing).of("a"), Rate::default());
        assert_eq!(flows(Some(&nothing), &after), None);
    }

    #[test]
    fn a_task_that_came_began_at_nothing() {
        assert_eq!(flows(Some(&look(1_000, &[], &[])), &look(2_000, &["a"], &[("a", 7)])), Some(7.0));
    }

    #[test]
    fn one_that_fell_is_left_out_as_a_whole() {
        let mut before = look(1_000, &["a"], &[("a", 10)]);
        let after = look(2_000, &["a"], &[("a", 30)]);
        let counts = before.counted.as_mut().unwrap().tasks.get_mut("a").unwrap();
        counts.bytes = 1_000_000;
        assert_eq!(flows(Some(&before), &after), None);
    }

    #[test]
    fn sums_are_of_what_is_known() {
        let one = Rate { flows: Some(1.5), active: Some(2), ..Rate::default() };
        let sum: Rate = [one, Rate::default(), one].into_iter().sum();
        assert_eq!(sum, Rate { flows: Some(3.0), active: Some(4), ..Rate::default() });
        assert_eq!([Rate::default()].into_iter().sum::<Rate>(), Rate::default());
    }
}
