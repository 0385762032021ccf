//! **Effect.** `mesh task rm`.

use crate::cli::{Session, removal};

/// Ask one or more tasks to stop: out of every node's balance first, then their end
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Forget a task of this node at once, without stopping anything
    #[arg(short, long)]
    force: bool,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Names such as web.1, or IDs
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

pub(super) async fn run(args: RmArgs, session: Session) -> anyhow::Result<u8> {
    let query = if args.force { "?force" } else { "" };
    let converge = (!args.detach).then_some("Task");
    removal::remove(&session, &args.tasks, |id| format!("/v1/tasks/{id}{query}"), converge).await
}
