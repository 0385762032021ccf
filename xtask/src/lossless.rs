//! `lossless`: builds Mesh and the load that it has to bear while everything changes, and becomes that.

use anyhow::Result;
use clap::Args;

use crate::program;

#[derive(Args)]
pub(crate) struct Lossless {
    /// Make all changes again until there were so many requests
    #[arg(long, default_value_t = 200_000)]
    requests: u64,
    /// How many requests a second
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(lossless: &Lossless) -> Result<()> {
    let mut load = program::of_tests("lossless")?;
    load.args(["--requests", &lossless.requests.to_string(), "--rate", &lossless.rate.to_string()]);
    load.args(lossless.json.then_some("--json"));
    program::become_it(load)
}
