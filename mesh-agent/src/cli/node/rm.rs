//! **Effect.** `mesh node rm`.

use crate::cli::{Session, several};

/// Remove one or more nodes that are gone for good, with their tasks
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Even if the node shows life
    #[arg(short, long)]
    force: bool,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Names or IDs
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(super) async fn run(args: RmArgs, session: Session) -> anyhow::Result<u8> {
    let query = if args.force { "?force" } else { "" };
    several::remove_everywhere(
        &session,
        &args.nodes,
        |id| format!("/v1/nodes/{id}{query}"),
        "Node",
        args.detach,
    )
    .await
}
