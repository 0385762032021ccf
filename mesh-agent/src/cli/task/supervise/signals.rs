//! **Effect.** Signals to a supervisor are for its command.

use std::io::IsTerminal;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Signals that are meant for the command.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    /// What the command gets when it is to end.
    pub(super) stop: Signal,
    /// Someone asked for the end.
    pub(super) asked: bool,
    /// Ctrl-C on a terminal reaches the command by itself; twice would mean something else to many programs.
    terminal: bool,
}

impl Signals {
    pub(super) fn listen(stop: Signal) -> anyhow::Result<Self> {
        Ok(Self {
            stop,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            asked: false,
            terminal: std::io::stdin().is_terminal(),
        })
    }

    /// The next signal to pass on.
    pub(super) async fn next(&mut self) -> Signal {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => self.stop,
                _ = self.interrupt.recv() => Signal::SIGINT,
                _ = self.hang_up.recv() => Signal::SIGHUP,
            };
            self.asked = true;
            if !(name == Signal::SIGINT && self.terminal) {
                return name;
            }
        }
    }
}
