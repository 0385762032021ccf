//! **Effect.** The last step to a task's command: this process becomes it.
//!
//! The kernel kills it when its supervisor dies (prctl(2) PR_SET_PDEATHSIG): a command that nobody watches
//! would serve on without an address or a record. Only the process itself can ask for that, and only between
//! fork and exec, hence this step.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::run::MESH_FAILED;
use super::supervise::program;
use crate::cli::output::Out;

/// Become a task's command
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExecArgs {
    /// The supervisor
    #[arg(long)]
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// The words that lead here.
pub(super) fn words(parent: u32) -> [OsString; 4] {
    ["task-exec".into(), "--parent".into(), parent.to_string().into(), "--".into()]
}

/// Returns only when it fails.
pub(in crate::cli) fn run(args: &ExecArgs, out: &Out) -> u8 {
    let Some((name, rest)) = args.command.split_first() else { return MESH_FAILED };
    if let Err(error) = set_pdeathsig(Signal::SIGKILL).context("cannot tie the command to its supervisor") {
        out.error(&error);
        return MESH_FAILED;
    }
    if getppid().as_raw() != args.parent {
        // It died before the line above.
        return MESH_FAILED;
    }
    let error = Command::new(name).args(rest).exec();
    let code = program::exit_code(&error);
    out.error(&anyhow::Error::new(error).context(format!("cannot run {}", name.display())));
    code
}
