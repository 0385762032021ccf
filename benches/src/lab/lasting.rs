//! Whether short connections go on as they began, or end up waiting for ports and for places in tables.

use std::thread;

use anyhow::{Context, Result, bail};

use super::load::{Metric, short};
use super::samples::Samples;
use super::target::{Entry, Path, Target};

/// The longest way.
const ENTRY: Entry = Entry::Remote;
/// Runs of wrk without a pause, and seconds of each. What is remembered of closed connections, it is for a minute or
/// two.
const RUNS: usize = 7;
const SECONDS: u32 = 10;

/// Measures each target once, for it takes long: one client, and then two, which use the same ports.
pub(super) fn measure(targets: &[&dyn Target], samples: &mut Samples) -> Result<()> {
    for target in targets {
        let Some(path) = target.path(ENTRY) else { continue };
        let second = Path { host: target.outside(), ..path };
        second.answers().with_context(|| format!("{} from outside", target.name()))?;
        let mut add = |metric, value| samples.add(metric, ENTRY, target.name(), 1, value);
        let [first, .., last] = runs(target.name(), &[path])?;
        add(Metric::ShortLasting, last / first);
        let [first, .., last] = runs(target.name(), &[path, second])?;
        add(Metric::TwoLasting, last / first);
        add(Metric::TwoCps, last);
    }
    Ok(())
}

/// Short connections a second of all these clients together, run by run.
fn runs(target: &str, clients: &[Path<'_>]) -> Result<[f64; RUNS]> {
    let mut runs = [0.0; RUNS];
    for run in &mut runs {
        *run = thread::scope(|scope| {
            let started: Vec<_> =
                clients.iter().map(|path| scope.spawn(move || short(path, SECONDS))).collect();
            let ended = started.into_iter().map(|client| match client.join() {
                Ok(said) => said,
                Err(_) => bail!("a thread of the load panicked"),
            });
            ended.sum::<Result<f64>>()
        })
        .with_context(|| format!("{target}: {} clients", clients.len()))?;
    }
    eprintln!("{target}, short connections/s of {} clients, every {SECONDS} s: {runs:.0?}", clients.len());
    Ok(runs)
}
