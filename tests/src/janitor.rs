//! Cleaning up behind a lab, however its process ends.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::wait::wait_for;

const SCRIPT: &str = include_str!("janitor.sh");

/// A small process that outlives this one and removes what the lab made: processes, control groups,
/// mounts, files. Dropping it has the work done and waits for it.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    /// What it waits on: it starts when nobody holds this any more.
    held: Mutex<Option<ChildStdin>>,
}

impl Janitor {
    /// To be started before anything is made at `cgroup` or `dir`.
    pub(crate) fn start(cgroup: &Path, dir: &Path) -> Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "janitor"])
            .args([cgroup, dir])
            .current_dir("/")
            // Out of our process group, so that Ctrl-C in a terminal does not end it with us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the process that cleans up behind the lab")?;
        let held = Mutex::new(child.stdin.take());
        Ok(Self { child, held })
    }

    /// Has one more file removed at the end.
    pub(crate) fn also_remove(&self, path: &Path) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let stdin = held.as_mut().context("the lab is closing")?;
        writeln!(stdin, "{}", path.display()).context("the process that cleans up behind the lab is gone")
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let ended = wait_for(&mut self.child, Instant::now() + Duration::from_secs(10));
        if !matches!(ended, Ok(Some(_))) {
            eprintln!("lab: cleaning up goes on in process {}", self.child.id());
        }
    }
}
