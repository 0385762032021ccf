//! What the data plane's programs cost per packet, and what a changed service costs the agent.
//!
//! Programs are not attached: the kernel runs them on a packet that it is given (`BPF_PROG_TEST_RUN`) and says how
//! long that took. Each packet is run once: a program that is run on one packet a million times finds its code, its
//! tables and the processor's guesses as no real packet does. Nothing is subtracted. What the clock and the call
//! themselves take is in every number, and shows in that of the program that does nothing.
//!
//! Another balancer can have its turns between ours: [`run`] takes Katran's object.

mod case;
mod frame;
mod katran;
mod node;
mod program;
mod report;
mod side;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::case::{Measured, Place};
pub use self::katran::Other;
pub use self::report::{Beside, Compared, Report, Row, ServiceChange};

/// How many services are published.
const SERVICES: [u32; 3] = [1, 100, 10_000];

/// Measures everything, and Katran beside if there is its object.
pub fn run(katran: Option<&Other>) -> Result<Report> {
    stay_here()?;
    let (mut mesh, mut other) = (Measured::default(), Measured::default());
    for services in SERVICES {
        for v6 in [false, true] {
            for path in case::Path::ALL {
                let place = Place { services, v6, path };
                case::measure(place, katran, &mut mesh, &mut other).with_context(|| place.to_string())?;
            }
        }
    }
    for rows in [&mut mesh.rows, &mut other.rows] {
        rows.sort_by_key(Row::order);
    }
    let beside = katran.map(|katran| {
        Beside::new(katran.flows, report::quantile(&mut other.empty, 0.5), other.rows, &mesh.rows)
    });
    Ok(Report {
        empty_ns: report::quantile(&mut mesh.empty, 0.5),
        rows: mesh.rows,
        program: program::measure()?,
        katran: beside,
    })
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
