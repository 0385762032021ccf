//! `chaos`: builds Mesh and what troubles it, and becomes that.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::program;

#[derive(Args)]
pub(crate) struct Chaos {
    /// What all faults follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// About how long
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// The first three nodes are managers, whose etcd is troubled; else there is one beside the nodes
    #[arg(long)]
    managed: bool,
    /// The data plane of the nodes [default: ebpf]
    #[arg(long, value_enum)]
    dataplane: Option<Dataplane>,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dataplane {
    Ebpf,
    Nft,
}

pub(crate) fn run(chaos: &Chaos) -> Result<()> {
    let mut faults = program::of_tests("chaos")?;
    faults.args(["--seed", &chaos.seed.to_string(), "--minutes", &chaos.minutes.to_string()]);
    if let Some(plane) = chaos.dataplane {
        faults.args(["--dataplane", if matches!(plane, Dataplane::Nft) { "nft" } else { "ebpf" }]);
    }
    faults.args(chaos.managed.then_some("--managed"));
    faults.args(chaos.json.then_some("--json"));
    program::become_it(faults)
}
