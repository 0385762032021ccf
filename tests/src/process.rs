//! A program that runs in the background of a host.

use std::{
    fs::{self, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{Netns, exec::kill_group, wait::wait_for};

/// A background program; dropping it kills it, with its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` inside `netns`; what it says is appended to `log`.
    pub(crate) fn start(netns: &Netns, mut command: Command, name: &str, log: PathBuf) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot open the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = netns.spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.into(), child, ended: None, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines that it said.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("cannot look at {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Sends it a signal; an error when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "cannot send {signal} to {}: it has ended ({status}); its last words:\n{}",
                self.name,
                self.log_tail(10)
            );
        }
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        self.ended = wait_for(&mut self.child, Instant::now() + timeout)?;
        self.ended.with_context(|| {
            format!(
                "{} (process {}) did not end within {timeout:?}; its last words:\n{}",
                self.name,
                self.child.id(),
                self.log_tail(10)
            )
        })
    }

    /// Kills it, and only it: what it started lives on.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(5))?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(timeout)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody could do anything about a failure here, and the host's control group kills what is left.
        if matches!(self.ended(), Ok(None)) {
            let _ = kill_group(&mut self.child);
        }
    }
}

/// The last lines of a file; empty when there is none.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
