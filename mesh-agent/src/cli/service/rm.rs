//! **Effect.** `mesh service rm`.

use crate::api::types::Task;
use crate::cli::leaving::{self, Timeouts};
use crate::cli::{Session, converge, several};

/// Remove one or more services; their tasks are told to stop
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Exit at once instead of waiting for the mesh to converge and the tasks to end
    #[arg(short, long)]
    detach: bool,
    /// Names or IDs
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: RmArgs, session: Session) -> anyhow::Result<u8> {
    let timeouts = Timeouts::read(&session).await?;
    let removed = several::remove(&session, &args.services, |id| format!("/v1/services/{id}")).await?;
    let newest = removed.changed.iter().map(|changed| changed.revision).max();
    if let Some(revision) = newest.filter(|_| !args.detach) {
        converge::wait(&session, "Service", revision).await?;
        let is_leaving = |task: &Task| removed.changed.iter().any(|changed| changed.id == task.service_id);
        leaving::ended(&session, revision, &timeouts, is_leaving).await?;
    }
    Ok(removed.code)
}
