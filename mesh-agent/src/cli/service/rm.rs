//! **Effect.** `mesh service rm`.

use crate::cli::{Session, several};

/// Remove one or more services; their tasks are told to stop
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Names or IDs
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: RmArgs, session: Session) -> anyhow::Result<u8> {
    several::remove_everywhere(
        &session,
        &args.services,
        |id| format!("/v1/services/{id}"),
        "Service",
        args.detach,
    )
    .await
}
