//! What a service costs its clients: real programs (wrk, iperf3, nginx) in a real mesh, beside the same without one.
//!
//! Every target serves the same from one task on the second node. All are measured in turn, round after round, and
//! each is compared with `direct` of the same round: what else the machine does meanwhile, it does to all of them.

mod bare;
mod direct;
mod lasting;
mod load;
mod mesh;
mod peer;
mod report;
pub(crate) mod samples;
pub(crate) mod server;
mod target;

use std::path::PathBuf;

use anyhow::{Context, Result};

use self::direct::Direct;
pub use self::load::Load;
use self::mesh::Mesh;
use self::peer::{Kind, Peer};
pub use self::report::{Report, Row};
use self::samples::Samples;
use self::target::{Entry, Target};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often everything is measured.
    pub rounds: usize,
    /// Seconds of a measurement.
    pub seconds: u32,
    /// Whether it is measured, too, how short connections fare after a minute of them.
    pub lasting: bool,
    /// What alone is measured.
    pub only: Option<Load>,
}

impl Plan {
    /// About twenty minutes. Many short rounds, for what else the machine does comes and goes.
    pub const FULL: Self = Self { rounds: 15, seconds: 1, lasting: true, only: None };
    /// Less than five.
    pub const QUICK: Self = Self { rounds: 3, seconds: 1, lasting: false, only: None };
}

/// Measures everything, with the `mesh` program that lies beside this one.
pub fn run(plan: Plan) -> Result<Report> {
    let program = mesh_program()?;
    let ebpf = Mesh::build("mesh-ebpf", "ebpf", &program)?;
    let nft = Mesh::build("mesh-nft", "nft", &program)?;
    let direct = Direct::build(&program, &ebpf)?;
    let peers = Kind::ALL.map(|kind| Peer::build(&program, kind));
    let peers = peers.into_iter().collect::<Result<Vec<_>>>()?;
    // The first is what the others are compared with.
    let mut targets: Vec<&dyn Target> = vec![&direct, &ebpf, &nft];
    targets.extend(peers.iter().map(|peer| peer as &dyn Target));
    warm_up(&targets)?;
    let mut samples = Samples::default();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        measure(&targets, round, plan, &mut samples)?;
    }
    if plan.lasting {
        lasting::measure(&targets, &mut samples)?;
    }
    Ok(Report::of(&targets.iter().map(|target| target.name()).collect::<Vec<_>>(), &samples))
}

/// The `mesh` program that lies beside this one.
pub(crate) fn mesh_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Ok(own.with_file_name("mesh"))
}

/// Everything is reached once before anything is measured.
fn warm_up(targets: &[&dyn Target]) -> Result<()> {
    for target in targets {
        for entry in Entry::ALL {
            if let Some(path) = target.path(entry) {
                let what = || format!("{} by {}", target.name(), entry.name());
                path.answers().with_context(what)?;
            }
        }
    }
    Ok(())
}

/// One round.
fn measure(targets: &[&dyn Target], round: usize, plan: Plan, samples: &mut Samples) -> Result<()> {
    for entry in Entry::ALL {
        for load in Load::ALL.into_iter().filter(|load| plan.only.is_none_or(|only| only == *load)) {
            let mut turn: Vec<_> = targets.iter().collect();
            // Nobody is always first, nor always after the same other.
            if round.is_multiple_of(2) {
                turn.reverse();
            }
            for target in turn {
                let Some(path) = target.path(entry).filter(|_| target.carries(load)) else { continue };
                let what = || format!("{} by {}: {load:?}", target.name(), entry.name());
                for (metric, value) in load.run(&path, plan.seconds).with_context(what)? {
                    eprintln!("  {:<6} {:<16} {:<10} {value:.1}", entry.name(), metric.name(), target.name());
                    samples.add(metric, entry, target.name(), round, value);
                }
            }
        }
    }
    Ok(())
}
