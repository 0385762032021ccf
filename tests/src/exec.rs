//! Commands that run to their end, within a time.

use std::{
    ffi::OsStr,
    fs::File,
    io::{Read, Seek, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{Netns, wait::wait_for};

/// How long a command may take when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A command that is about to run on a host of the lab.
#[derive(Debug)]
#[must_use = "a command does nothing until run() or ok()"]
pub struct Exec {
    netns: Netns,
    command: Command,
    shown: String,
    timeout: Duration,
    stdin: Vec<u8>,
}

impl Exec {
    /// `command` inside `netns`; `shown` is how messages name it.
    pub(crate) fn new(netns: &Netns, command: Command, shown: String) -> Self {
        Self { netns: netns.clone(), command, shown, timeout: DEFAULT_TIMEOUT, stdin: Vec::new() }
    }

    /// How long it may take; then it is killed with its process group, and `run` is an error.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What it reads on its standard input.
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end, whatever its exit code is.
    pub fn run(mut self) -> Result<Output> {
        // Files and not pipes: a program that is left in the background with our pipe would hold us for ever.
        let mut stdin = tempfile::tempfile().context("cannot make a file for standard input")?;
        stdin.write_all(&self.stdin)?;
        stdin.rewind()?;
        let stdout = tempfile::tempfile().context("cannot make a file for standard output")?;
        let stderr = tempfile::tempfile().context("cannot make a file for standard error")?;
        self.command.stdin(stdin).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?).process_group(0);
        let mut child =
            self.netns.spawn(self.command).with_context(|| format!("cannot run `{}`", self.shown))?;
        let status = wait_for(&mut child, Instant::now() + self.timeout)?;
        if status.is_none() {
            kill_group(&mut child)?;
        }
        let (stdout, stderr) = (read_back(stdout)?, read_back(stderr)?);
        match status {
            Some(status) => Ok(Output { command: self.shown, status, stdout, stderr }),
            None => bail!(
                "`{}` did not end within {:?} and was killed{}",
                self.shown,
                self.timeout,
                said(&stdout, &stderr)
            ),
        }
    }

    /// Runs it; its standard output, or an error when it fails.
    pub fn ok(self) -> Result<String> {
        self.run()?.ok()
    }
}

/// What a command left.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command, with the host it ran on.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output, or an error that shows the command, its exit code and what it said.
    pub fn ok(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        bail!("`{}` failed: {}{}", self.command, self.status, said(&self.stdout, &self.stderr))
    }

    /// The standard error of a command that had to fail, or an error when it went well.
    pub fn failed(self) -> Result<String> {
        if !self.status.success() {
            return Ok(self.stderr);
        }
        bail!("`{}` went well but had to fail{}", self.command, said(&self.stdout, &self.stderr))
    }

    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Kills a child that leads a process group, with the group, and reaps it.
pub(crate) fn kill_group(child: &mut Child) -> Result<()> {
    // The child is not reaped yet, so the number is still its own. A failure means that nobody is left.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait().context("cannot wait for a killed process")?;
    Ok(())
}

/// A command as people write it.
pub(crate) fn shown(host: &str, argv: &[impl AsRef<OsStr>]) -> String {
    let words: Vec<_> = argv.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    format!("{host}: {}", words.join(" "))
}

/// Runs a program of the machine in a namespace, out of any host's control group: for building the lab.
pub(crate) fn run_in(netns: &Netns, argv: &[&str], stdin: &str) -> Result<String> {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null());
    Exec::new(netns, command, argv.join(" ")).stdin(stdin).ok()
}

fn read_back(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn said(stdout: &str, stderr: &str) -> String {
    let mut text = String::new();
    for (stream, said) in [("stderr", stderr), ("stdout", stdout)] {
        if !said.trim().is_empty() {
            text += &format!("\n  {stream}: {}", said.trim_end().replace('\n', "\n          "));
        }
    }
    text
}
