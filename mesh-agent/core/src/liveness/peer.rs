//! **Decision.** What is known of one other node.

use super::{Millis, Timing, Verdict};

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) verdict: Verdict,
    /// When the verdict last changed; none: before we began.
    pub(super) since: Option<Millis>,
    /// In this window.
    pub(super) heard: bool,
    /// In any.
    pub(super) ever: bool,
    /// Whether it must be heard, so that it is judged even if it never was.
    pub(super) expected: bool,
    /// Whether a probe left at the beginning of this window: otherwise silence says nothing.
    pub(super) probed: bool,
    /// When another last said that it hears it.
    pub(super) vouched: Option<Millis>,
    /// Windows in a row without an answer.
    misses: u32,
    /// Windows in a row with one.
    answers: u32,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            verdict: Verdict::Unheard,
            since: None,
            heard: false,
            ever: false,
            expected: false,
            probed: false,
            vouched: None,
            misses: 0,
            answers: 0,
        }
    }
}

impl Peer {
    /// One that the agent before did not hear.
    pub(super) fn silent(timing: &Timing) -> Self {
        Self { verdict: Verdict::Dead, misses: timing.dead, ..Self::default() }
    }

    /// A window ends. `late`: we slept through some of it, so that silence says nothing; it is not forgiven either.
    pub(super) fn judge(&mut self, late: bool, now: Millis, timing: &Timing) {
        let judged = self.verdict != Verdict::Unheard || self.expected;
        if std::mem::take(&mut self.heard) {
            (self.misses, self.answers, self.ever) = (0, self.answers + 1, true);
        } else if late || !self.probed || !judged {
            return;
        } else {
            (self.misses, self.answers) = (self.misses + 1, 0);
        }
        let verdict = self.conclude(now, timing);
        if verdict != self.verdict {
            (self.verdict, self.since) = (verdict, Some(now));
        }
    }

    /// As if it had been silent for long.
    pub(super) fn doubt(&mut self, now: Millis, timing: &Timing) {
        if self.verdict != Verdict::Unheard {
            (self.misses, self.answers, self.heard) = (timing.dead, 0, false);
            (self.verdict, self.since) = (Verdict::Dead, Some(now));
        }
    }

    /// Whether it has been what it is for longer than a time.
    pub(super) fn lasts(&self, time: Millis, now: Millis) -> bool {
        self.since.is_none_or(|since| now > since + time)
    }

    fn conclude(&self, now: Millis, timing: &Timing) -> Verdict {
        let silence = timing.period * Millis::from(timing.dead);
        let vouched = self.vouched.is_some_and(|at| now <= at + silence);
        match self.verdict {
            _ if self.answers >= timing.back => Verdict::Up,
            Verdict::Unheard if !self.expected => Verdict::Unheard,
            // A single answer clears of suspicion, but brings nobody back.
            Verdict::Suspect if self.answers > 0 => Verdict::Up,
            _ if self.misses >= timing.path_down && vouched => Verdict::PathDown,
            _ if self.misses >= timing.dead && !vouched => Verdict::Dead,
            Verdict::Up if self.misses >= timing.suspect => Verdict::Suspect,
            same => same,
        }
    }

    /// Whether it answered in one of the last two windows, and is not on its way back only.
    pub(super) fn is_heard(&self) -> bool {
        self.verdict == Verdict::Up && self.misses < 2
    }

    /// Whether others are to be asked about it: in each window until there is a verdict, and then now and then.
    pub(super) fn is_asked_about(&self, timing: &Timing) -> bool {
        let silent = self.misses >= timing.suspect;
        silent && (self.misses <= timing.path_down || self.misses.is_multiple_of(timing.suspect))
    }
}
