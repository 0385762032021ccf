//! `bench`: builds what measures, as it would be released, and becomes it.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;

use crate::{setup, shell};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// What a packet costs in the programs, and a changed service in their maps
    Datapath,
}

pub(crate) fn run(what: What, json: bool, katran: Option<&Path>, flows: Option<u32>) -> Result<()> {
    let What::Datapath = what;
    if !shell::is_root() {
        bail!(
            "this loads eBPF programs, which needs root. \
             Run `sudo -E env PATH=\"$PATH\" cargo xtask bench datapath`"
        );
    }
    setup::run(setup::Talk::Problems)?;
    shell::run(shell::cargo().args(["build", "--release", "--package=mesh-benches", "--bin=datapath"]))?;
    let program = shell::target_dir().join("release/datapath");
    // Replaces this process: standard output and the exit code are the program's own.
    let mut measure = Command::new(&program);
    measure.args(json.then_some("--json"));
    if let Some(object) = katran {
        measure.arg("--katran").arg(object);
    }
    if let Some(flows) = flows {
        measure.arg("--katran-flows").arg(flows.to_string());
    }
    let error = measure.exec();
    Err(anyhow!(error).context(format!("cannot start {}", program.display())))
}
