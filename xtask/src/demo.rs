//! `demo`: builds Mesh and becomes `mesh demo`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Result, anyhow};

use crate::{setup, shell};

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    setup::run(setup::Talk::Problems)?;
    shell::run(shell::cargo().args(["build", "--release", "--package=mesh-agent", "--bin=mesh"]))?;
    let mesh = shell::target_dir().join("release/mesh");
    // Replaces this process: signals, the terminal and the exit code are the program's own.
    let error = Command::new(&mesh).arg("demo").args(args).stdin(Stdio::inherit()).exec();
    Err(anyhow!(error).context(format!("cannot start {}", mesh.display())))
}
