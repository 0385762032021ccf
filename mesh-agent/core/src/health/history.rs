//! What the last probes of a task said, as people look at it: Docker's `State.Health`.

use std::collections::VecDeque;

use crate::model::Timestamp;

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Of a command its own; else 0 for success, 1 for failure; -1 when it took too long.
    pub exit_code: i32,
    /// What a command printed, a status, or what went wrong.
    pub output: String,
}

/// The last probes of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Failures in a row that count.
    pub streak: u32,
    /// Oldest first.
    pub log: VecDeque<Probed>,
}

impl History {
    /// How many are remembered.
    pub const ROOM: usize = 5;
    /// How much is remembered of what each printed, bytes.
    pub const OUTPUT: usize = 4096;

    /// Notes a probe, after which so many in a row have failed.
    pub fn note(&mut self, mut probed: Probed, streak: u32) {
        let end = (0..=Self::OUTPUT).rev().find(|end| probed.output.is_char_boundary(*end));
        probed.output.truncate(end.unwrap_or_default());
        self.streak = streak;
        self.log.push_back(probed);
        while self.log.len() > Self::ROOM {
            self.log.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_are_remembered_and_not_all_that_they_said() {
        let mut history = History::default();
        for start in 0..7 {
            let output = "ö".repeat(usize::try_from(start).unwrap() * 1000);
            history.note(Probed { start, end: start + 1, exit_code: 1, output }, start as u32);
        }
        let lengths: Vec<_> = history.log.iter().map(|probed| (probed.start, probed.output.len())).collect();
        assert_eq!(lengths, [(2, 4000), (3, 4096), (4, 4096), (5, 4096), (6, 4096)]);
        assert_eq!(history.streak, 6);
        let odd = Probed { start: 9, end: 9, exit_code: 0, output: format!("x{}", "ö".repeat(4096)) };
        history.note(odd, 0);
        assert_eq!(history.log[4].output.len(), 4095, "no half letters");
    }
}
