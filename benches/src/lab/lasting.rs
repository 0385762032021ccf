//! Whether short connections from one address go on as they began, or end up waiting for ports and entries of tables.

use anyhow::{Context, Result};

use super::load::{Metric, short};
use super::samples::Samples;
use super::target::{Entry, Target};

/// Runs of wrk without a pause, and seconds of each. What is remembered of closed connections, it is for a minute or
/// two.
const RUNS: usize = 7;
const SECONDS: u32 = 10;

/// Measures each target once: as long as it takes, no interruption may be longer.
pub(super) fn measure(targets: &[&dyn Target], samples: &mut Samples) -> Result<()> {
    for entry in [Entry::Remote, Entry::Vip] {
        for target in targets {
            let Some(path) = target.path(entry) else { continue };
            let what = || format!("{} by {}", target.name(), entry.name());
            let runs: Vec<f64> =
                (0..RUNS).map(|_| short(&path, SECONDS)).collect::<Result<_>>().with_context(what)?;
            eprintln!("short connections/s, {}, every {SECONDS} s: {runs:.0?}", what());
            samples.add(Metric::ShortLasting, entry, target.name(), 1, runs[RUNS - 1] / runs[0]);
        }
    }
    Ok(())
}
