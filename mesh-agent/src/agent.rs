//! **Effect.** The daemon: `mesh agent`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Run the mesh's daemon on this node
#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Remove everything that the mesh has put into this node's kernel, and exit
    #[arg(long)]
    pub cleanup: bool,
    /// Print the configuration in force, and exit
    #[arg(long)]
    pub print_config: bool,
    /// Take over what the store says even where much would vanish
    #[arg(long)]
    pub accept_deletions: bool,
    /// Set one value of the configuration
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Runs the agent until it is told to stop.
pub fn main(_args: AgentArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired")
}
