//! **Effect.** `mesh task rm`.

use crate::api::types::Task;
use crate::cli::leaving::{self, Timeouts};
use crate::cli::{Session, several};

/// Stop one or more tasks: out of every node's balance first, then their end
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Forget a task of this node at once, without stopping anything
    #[arg(short, long)]
    force: bool,
    /// Exit at once instead of waiting until they have ended
    #[arg(short, long)]
    detach: bool,
    /// Names such as web.1, or IDs
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

pub(super) async fn run(args: RmArgs, session: Session) -> anyhow::Result<u8> {
    let query = if args.force { "?force" } else { "" };
    let timeouts = Timeouts::read(&session).await?;
    let removed = several::remove(&session, &args.tasks, |id| format!("/v1/tasks/{id}{query}")).await?;
    let newest = removed.changed.iter().map(|changed| changed.revision).max();
    if let Some(revision) = newest.filter(|_| !args.detach) {
        let is_leaving = |task: &Task| removed.changed.iter().any(|changed| changed.id == task.id);
        leaving::ended(&session, revision, &timeouts, is_leaving).await?;
    }
    Ok(removed.code)
}
