//! What the data plane's programs cost per packet, and what a changed service costs the agent.
//!
//! Programs are not attached: the kernel runs them on a packet that it is given (`BPF_PROG_TEST_RUN`) and says how
//! long that took. Each packet is run once: a program that is run on one packet a million times finds its code, its
//! tables and the processor's guesses as no real packet does. Nothing is subtracted. What the clock and the call
//! themselves take is in every number, and shows in that of the program that does nothing.

mod case;
mod frame;
mod node;
mod program;
mod report;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::case::Place;
pub use self::report::{Report, Row, ServiceChange};

/// How many services are published.
const SERVICES: [u32; 3] = [1, 100, 10_000];

/// Measures everything.
pub fn run() -> Result<Report> {
    stay_here()?;
    let mut report = Report::default();
    let mut empty = Vec::new();
    for services in SERVICES {
        for v6 in [false, true] {
            for path in case::Path::ALL {
                let place = Place { services, v6, path };
                case::measure(place, &mut report.rows, &mut empty).with_context(|| place.to_string())?;
            }
        }
    }
    report.empty_ns = report::quantile(&mut empty, 0.5);
    report.rows.sort_by_key(Row::order);
    report.program = program::measure()?;
    Ok(report)
}

/// Counters and scratch memory are per CPU; a thread that moves would also find cold caches.
fn stay_here() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    // The last: interrupts prefer the first.
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu) == Ok(true)).unwrap_or_default();
    let mut cpus = CpuSet::new();
    cpus.set(last)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}
