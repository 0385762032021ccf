//! **Effect.** `mesh task rm`.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::api::types::Task;
use crate::cli::{Session, several};

/// Every node lets go first, running flows end, then the command has its grace period.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);

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
    let removed = several::remove(&session, &args.tasks, |id| format!("/v1/tasks/{id}{query}")).await?;
    if !args.detach && !removed.changed.is_empty() {
        let ids: Vec<_> = removed.changed.into_iter().map(|changed| changed.id).collect();
        ended(&session, &ids).await?;
    }
    Ok(removed.code)
}

/// Waits until none of them is there any more.
async fn ended(session: &Session, ids: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut shown = None;
    loop {
        let tasks: Vec<Task> = session.client.get("/v1/tasks").await?;
        let left: Vec<&Task> = tasks.iter().filter(|task| ids.contains(&task.id)).collect();
        if shown != Some(left.len()) {
            let done = ids.len() - left.len();
            session.out.progress(&format!("overall progress: {done} out of {} tasks", ids.len()));
            shown = Some(left.len());
        }
        if left.is_empty() {
            session.out.done("verify: Tasks ended");
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            let names: Vec<_> = left.iter().map(|task| task.name.as_str()).collect();
            bail!(
                "after {} s these have not ended: {}; their nodes go on trying",
                PATIENCE.as_secs(),
                names.join(", ")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}
