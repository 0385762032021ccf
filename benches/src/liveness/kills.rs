//! A task is killed, on a node that lives.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Mesh;
use super::deaths::last;
use super::flows::Flows;

/// Flows before, and long enough after.
const AROUND: Duration = Duration::from_millis(150);

/// From kill -9 until the last new flow that went to the task, ms, for every node.
pub(super) fn measure(mesh: &Mesh, task: &mut Pid) -> Result<Vec<f64>> {
    let flows = Flows::begin(mesh)?;
    thread::sleep(AROUND);
    let died = Instant::now();
    kill(*task, Signal::SIGKILL).context("cannot kill the task")?;
    thread::sleep(4 * AROUND);
    let flows = flows.end()?;
    let times = (0..mesh.entries().len()).map(|entry| last(&flows, entry, died)).collect::<Result<_>>()?;
    *task = mesh.serve(mesh.victim()?)?;
    mesh.settle()?;
    Ok(times)
}
