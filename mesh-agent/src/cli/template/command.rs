//! **Effect.** The command that is told of new files.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::{Instant, timeout};

/// The first pause; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// A command, and how often it failed.
#[derive(Debug)]
pub(super) struct Command {
    line: String,
    patience: Duration,
    attempts: u32,
    failed: u32,
    due: Option<Instant>,
}

impl Command {
    pub(super) fn new(line: &str, patience: Duration, attempts: u32) -> Self {
        Self { line: line.to_owned(), patience, attempts, failed: 0, due: None }
    }

    /// There is news: failures are forgotten.
    pub(super) fn renew(&mut self) {
        (self.failed, self.due) = (0, None);
    }

    /// When to run it again; none: it succeeded, or failed too often.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Runs it, and notes when to do so again if it fails.
    pub(super) async fn run(&mut self) -> anyhow::Result<()> {
        let ended = self.once().await;
        self.due = None;
        if ended.is_err() {
            self.failed += 1;
            self.due = (self.failed < self.attempts).then(|| Instant::now() + pause(self.failed));
        }
        ended
    }

    /// All that it starts is in a process group of its own, which ends with it when it takes too long.
    async fn once(&self) -> anyhow::Result<()> {
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell.arg("-c").arg(&self.line).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        let mut child = shell.spawn().context("cannot run /bin/sh")?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let Ok(ended) = timeout(self.patience, child.wait()).await else {
            if let Some(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            bail!("'{}' had not ended after {:?} and was killed", self.line, self.patience);
        };
        let status = ended.context("cannot wait for it")?;
        if !status.success() {
            bail!("'{}' failed: {status}", self.line);
        }
        Ok(())
    }
}

/// How long to wait after so many failures.
fn pause(failed: u32) -> Duration {
    PAUSE.saturating_mul(1 << failed.saturating_sub(1).min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow() {
        assert_eq!(
            [1, 2, 3, 12, 99].map(|failed| pause(failed).as_millis()),
            [250, 500, 1000, 30_000, 30_000]
        );
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_until_it_failed_too_often() {
        let mut command = Command::new("exit 3", Duration::from_secs(60), 2);
        let error = command.run().await.unwrap_err().to_string();
        assert!(error.contains("'exit 3' failed: exit status: 3") && command.due().is_some(), "{error}");
        assert!(command.run().await.is_err() && command.due().is_none());
        command.renew();
        assert!(command.run().await.is_err() && command.due().is_some());
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended() {
        let mut command = Command::new("sleep 100 & wait", Duration::from_millis(50), 1);
        assert!(command.run().await.unwrap_err().to_string().contains("was killed"));
        assert!(Command::new("true", Duration::from_secs(60), 1).run().await.is_ok());
    }
}
