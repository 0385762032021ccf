//! **Effect.** `mesh task update`.

use anyhow::bail;

use crate::api::types::{Availability, Changed, TaskUpdate};
use crate::cli::several::encode;
use crate::cli::{OK, Session, converge, leaving};

/// Update a task
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UpdateArgs {
    /// active: takes part; drain: gets no new flows
    #[arg(long, value_enum)]
    availability: Option<Availability>,
    /// Share of new flows, in relation to the service's other tasks; 0: none. On the task's own node
    #[arg(short, long)]
    weight: Option<u16>,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Name such as web.1, or ID
    #[arg(value_name = "TASK")]
    task: String,
}

pub(super) async fn run(args: UpdateArgs, session: Session) -> anyhow::Result<u8> {
    let UpdateArgs { availability, weight, detach, quiet, task } = args;
    if availability.is_none() && weight.is_none() {
        bail!("nothing to update: use --availability or --weight");
    }
    session.out.quiet_progress(quiet);
    let update = TaskUpdate { availability, weight, ..TaskUpdate::default() };
    let changed: Changed = session.client.patch(&format!("/v1/tasks/{}", encode(&task)), &update).await?;
    session.out.line(&task);
    if detach {
    } else if availability == Some(Availability::Drain) {
        leaving::drained(&session, changed.revision, |task| task.id == changed.id, |_| false).await?;
    } else {
        converge::wait(&session, "Task", changed.revision).await?;
    }
    Ok(OK)
}
