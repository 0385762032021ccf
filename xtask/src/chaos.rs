//! `chaos`: builds Mesh and what troubles it, and becomes that.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};

use crate::{setup, shell};

#[derive(Args)]
pub(crate) struct Chaos {
    /// What all faults follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// About how long
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
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
    if !shell::is_root() {
        bail!(
            "this makes network namespaces and loads eBPF programs, which needs root. \
             Run `sudo -E env PATH=\"$PATH\" cargo xtask chaos`"
        );
    }
    setup::run(setup::Talk::Problems)?;
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package=mesh-tests", "--bin=chaos"]);
    shell::run(build.args(["--package=mesh-agent", "--bin=mesh"]))?;
    let program = shell::target_dir().join("release/chaos");
    // Replaces this process: standard output and the exit code are the program's own.
    let mut faults = Command::new(&program);
    faults.args(["--seed", &chaos.seed.to_string(), "--minutes", &chaos.minutes.to_string()]);
    if let Some(plane) = chaos.dataplane {
        faults.args(["--dataplane", if matches!(plane, Dataplane::Nft) { "nft" } else { "ebpf" }]);
    }
    faults.args(chaos.json.then_some("--json")).stdin(Stdio::null());
    let error = faults.exec();
    Err(anyhow!(error).context(format!("cannot start {}", program.display())))
}
