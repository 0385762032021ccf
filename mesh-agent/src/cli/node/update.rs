//! **Effect.** `mesh node update`.

use crate::api::types::{Availability, Changed, NodeUpdate, Task};
use crate::cli::several::encode;
use crate::cli::{OK, Session, converge, leaving};

/// Update a node
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UpdateArgs {
    /// active: takes part; pause: takes no new tasks; drain: its tasks get no new flows, and those
    /// that the mesh runs are replaced elsewhere
    #[arg(long, value_enum)]
    availability: Availability,
    /// Exit at once instead of waiting for the mesh to converge and, with 'drain', for connections to end
    #[arg(short, long)]
    detach: bool,
    /// Name, ID, or 'self'
    #[arg(value_name = "NODE")]
    node: String,
}

pub(super) async fn run(args: UpdateArgs, session: Session) -> anyhow::Result<u8> {
    let UpdateArgs { availability, detach, node } = args;
    let path = format!("/v1/nodes/{}", encode(&node));
    let changed: Changed = session.client.patch(&path, &NodeUpdate { availability }).await?;
    session.out.line(&node);
    if detach {
    } else if availability == Availability::Drain {
        let here = |task: &Task| task.node_id == changed.id;
        leaving::drained(&session, changed.revision, here, |task| task.program.is_some()).await?;
    } else {
        converge::wait(&session, "Node", changed.revision).await?;
    }
    Ok(OK)
}
