//! Programs that xtask builds and then becomes: their standard output and exit code are what was asked for.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Result, anyhow, bail};

use crate::{setup, shell};

/// A program of `mesh-tests` that runs Mesh in a lab, both built for release. It needs root, as the verb of the same
/// name does.
pub(crate) fn of_tests(name: &str) -> Result<Command> {
    if !shell::is_root() {
        bail!(
            "this makes network namespaces and loads eBPF programs, which needs root. \
             Run `sudo -E env PATH=\"$PATH\" cargo xtask {name}`"
        );
    }
    setup::run(setup::Talk::Problems)?;
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package=mesh-tests", &format!("--bin={name}")]);
    shell::run(build.args(["--package=mesh-agent", "--bin=mesh"]))?;
    let mut program = Command::new(shell::target_dir().join("release").join(name));
    program.stdin(Stdio::null());
    Ok(program)
}

/// Replaces this process: signals, the terminal, standard output and the exit code are the program's own.
pub(crate) fn become_it(mut program: Command) -> Result<()> {
    let error = program.exec();
    Err(anyhow!(error).context(format!("cannot start {}", program.get_program().display())))
}
