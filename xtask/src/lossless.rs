//! `lossless`: builds Mesh and the load that it has to bear while everything changes, and becomes that.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Result, anyhow, bail};
use clap::Args;

use crate::{setup, shell};

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
    if !shell::is_root() {
        bail!(
            "this makes network namespaces and loads eBPF programs, which needs root. \
             Run `sudo -E env PATH=\"$PATH\" cargo xtask lossless`"
        );
    }
    setup::run(setup::Talk::Problems)?;
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package=mesh-tests", "--bin=lossless"]);
    shell::run(build.args(["--package=mesh-agent", "--bin=mesh"]))?;
    let program = shell::target_dir().join("release/lossless");
    // Replaces this process: standard output and the exit code are the program's own.
    let mut load = Command::new(&program);
    load.args(["--requests", &lossless.requests.to_string(), "--rate", &lossless.rate.to_string()]);
    load.args(lossless.json.then_some("--json")).stdin(Stdio::null());
    let error = load.exec();
    Err(anyhow!(error).context(format!("cannot start {}", program.display())))
}
