//! **Effect.** `mesh network rm`.

use crate::cli::{Session, several};

/// Remove one or more networks
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RmArgs {
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Names or IDs
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

pub(super) async fn run(args: RmArgs, session: Session) -> anyhow::Result<u8> {
    several::remove_everywhere(
        &session,
        &args.networks,
        |id| format!("/v1/networks/{id}"),
        "Network",
        args.detach,
    )
    .await
}
