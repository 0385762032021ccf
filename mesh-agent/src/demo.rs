//! **Effect.** A mesh of several nodes on this machine, to look at: `mesh demo`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Show the mesh at work on this machine, in namespaces of its own
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Run through once and exit, instead of waiting for Ctrl-C
    #[arg(long)]
    pub once: bool,
    /// Print what happens as JSON
    #[arg(long)]
    pub json: bool,
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// What to do with a demo that runs
    #[command(subcommand)]
    pub command: Option<DemoCommand>,
}

/// What can be done with a demo that runs.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum DemoCommand {
    /// Run a command on one of its hosts
    Exec {
        /// A node or the client
        host: String,
        /// The command
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
}

/// Runs the demo.
pub fn main(_args: &DemoArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}
