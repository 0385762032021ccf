//! A node's wire is unplugged.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::flows::{Flow, Flows};
use super::{Mesh, millis};

/// Flows before, and long enough after.
const BEFORE: Duration = Duration::from_millis(100);
const AFTER: Duration = Duration::from_millis(1300);

/// Until the last flow that went to the dead node, ms, for every other node.
pub(super) fn measure(mesh: &Mesh) -> Result<Vec<f64>> {
    let victim = mesh.victim()?.name();
    let flows = Flows::begin(mesh)?;
    thread::sleep(BEFORE);
    // The command takes some milliseconds, which count as if the node were dead already.
    let died = Instant::now();
    mesh.lab.unplug(victim)?;
    thread::sleep(AFTER);
    let flows = flows.end()?;
    mesh.lab.plug(victim)?;
    let times = (0..mesh.entries().len()).map(|entry| last(&flows, entry, died)).collect::<Result<_>>()?;
    mesh.settle()?;
    Ok(times)
}

/// The last flow of all that nobody answered.
pub(super) fn last(flows: &[Flow], entry: usize, died: Instant) -> Result<f64> {
    let own: Vec<_> = flows.iter().filter(|flow| flow.entry == entry).collect();
    let before = own.iter().filter(|flow| flow.sent + BEFORE / 2 < died && flow.answer.is_none()).count();
    ensure!(before == 0, "{before} flows were lost before anything died");
    let lost = own.iter().filter(|flow| flow.sent > died && flow.answer.is_none());
    Ok(lost.map(|flow| millis(flow.sent - died)).fold(0.0, f64::max))
}
