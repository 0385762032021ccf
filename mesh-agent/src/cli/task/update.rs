//! **Effect.** `mesh task update`.

use anyhow::bail;

use crate::api::types::{Availability, Changed, Health, TaskUpdate};
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
    /// Whether it can serve, as whoever knows reports it; none: as long as it runs. On the task's own node, and not where
    /// its service has a health check
    #[arg(long, value_enum)]
    health: Option<Reported>,
    /// With --health: why
    #[arg(long, value_name = "TEXT", requires = "health")]
    health_message: Option<String>,
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

/// What may be reported of a task's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reported {
    /// It can serve.
    Healthy,
    /// It gets no new flows.
    Unhealthy,
    /// Nobody says: it serves while it runs.
    None,
}

impl From<Reported> for Health {
    fn from(reported: Reported) -> Self {
        match reported {
            Reported::Healthy => Self::Healthy,
            Reported::Unhealthy => Self::Unhealthy,
            Reported::None => Self::None,
        }
    }
}

pub(super) async fn run(args: UpdateArgs, session: Session) -> anyhow::Result<u8> {
    let UpdateArgs { availability, weight, health, health_message, detach, quiet, task } = args;
    if availability.is_none() && weight.is_none() && health.is_none() {
        bail!("nothing to update: use --availability, --weight or --health");
    }
    session.out.quiet_progress(quiet);
    // Without a reason there is none: the one that was given before is no longer true.
    let message = health.map(|_| health_message.unwrap_or_default());
    let health = health.map(Into::into);
    let update = TaskUpdate { availability, weight, health, message, ..TaskUpdate::default() };
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
