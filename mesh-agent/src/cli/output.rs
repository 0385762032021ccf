//! **Effect.** The one place that the command line speaks from.
//!
//! A reader that has seen enough (`mesh service ls | head -1`) is no error: what follows is not written.

use std::cell::Cell;
use std::io::{IsTerminal, Write};

/// Standard output for results, standard error for all else.
pub(super) struct Out {
    /// A line is on the terminal that the next progress message replaces.
    unfinished: Cell<bool>,
    /// Progress is not asked for.
    quiet: Cell<bool>,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { unfinished: Cell::new(false), quiet: Cell::new(false) }
    }

    /// A result.
    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.bytes(format!("{}\n", text.as_ref()).as_bytes());
    }

    /// A result; false: nobody reads any more.
    pub(super) fn is_read(&self, text: &str) -> bool {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
    }

    /// Results that are lines already.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        // Nobody reads, or nobody can be told.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// A message.
    pub(super) fn say(&self, text: impl AsRef<str>) {
        let end = if self.unfinished.take() { "\n" } else { "" };
        let _ = writeln!(std::io::stderr(), "{end}{}", text.as_ref());
    }

    /// Whether to leave progress out.
    pub(super) fn quiet_progress(&self, quiet: bool) {
        self.quiet.set(quiet);
    }

    /// Where long work has come to its end.
    pub(super) fn done(&self, text: &str) {
        if !self.quiet.get() {
            self.say(text);
        }
    }

    /// A message that replaces the one before it, where there is a terminal to do so.
    pub(super) fn progress(&self, text: &str) {
        if self.quiet.get() {
            return;
        }
        let mut stderr = std::io::stderr();
        if !stderr.is_terminal() {
            self.say(text);
            return;
        }
        let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
        self.unfinished.set(true);
    }

    /// What went wrong.
    pub(super) fn error(&self, error: &anyhow::Error) {
        self.say(format!("mesh: {error:#}"));
    }
}
