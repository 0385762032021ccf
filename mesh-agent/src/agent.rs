//! **Effect.** The daemon: `mesh agent`.

use std::path::PathBuf;

/// `mesh agent`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AgentArgs {
    /// The configuration file [default: /etc/mesh/mesh.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one configuration key, over file and environment
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the default configuration file, with every key explained
    #[arg(long)]
    pub print_config: bool,
    /// Take over what the store says now, even if much of what was known is gone
    #[arg(long)]
    pub accept_deletions: bool,
    /// Remove all that the agent made on this node: devices, routes, rules, sockets. Tasks lose their network
    #[arg(long)]
    pub cleanup: bool,
}

/// Runs the agent until a signal ends it.
pub fn main(_args: &AgentArgs) -> anyhow::Result<()> {
    anyhow::bail!("not wired")
}
