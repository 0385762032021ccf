//! **Effect.** `mesh task drain`.

use crate::api::types::{Availability, Changed, Task, TaskUpdate};
use crate::cli::several::{encode, report};
use crate::cli::{OK, Session, leaving};

/// Drain one or more tasks: every node sends them nothing new, their connections go on, and they are not stopped
///
/// Shows how many nodes have confirmed that, and how many connections are left; waits for these for at most the drain
/// timeout of the service. 'mesh task update --availability active' undoes it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DrainArgs {
    /// Exit at once instead of waiting until they are drained
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Names such as web.1, or IDs
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

pub(super) async fn run(args: DrainArgs, session: Session) -> anyhow::Result<u8> {
    let DrainArgs { detach, quiet, tasks } = args;
    session.out.quiet_progress(quiet);
    let update = TaskUpdate { availability: Some(Availability::Drain), ..TaskUpdate::default() };
    let (mut code, mut changes) = (OK, Vec::new());
    for task in &tasks {
        match session.client.patch::<Changed>(&format!("/v1/tasks/{}", encode(task)), &update).await {
            Ok(changed) => {
                session.out.line(task);
                changes.push(changed);
            }
            Err(error) => code = report(&session, error)?,
        }
    }
    let newest = changes.iter().map(|changed| changed.revision).max();
    if let Some(revision) = newest.filter(|_| !detach) {
        let is_leaving = |task: &Task| changes.iter().any(|changed| changed.id == task.id);
        leaving::drained(&session, revision, is_leaving, |_| false).await?;
    }
    Ok(code)
}
