//! `demo`: builds Mesh and becomes `mesh demo`.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{program, setup, shell};

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    setup::run(setup::Talk::Problems)?;
    shell::run(shell::cargo().args(["build", "--release", "--package=mesh-agent", "--bin=mesh"]))?;
    let mesh = shell::target_dir().join("release/mesh");
    let mut demo = Command::new(mesh);
    demo.arg("demo").args(args).stdin(Stdio::inherit());
    program::become_it(demo)
}
