//! **Effect.** `mesh network rm`.

use crate::cli::{Session, removal};

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
    let converge = (!args.detach).then_some("Network");
    removal::remove(&session, &args.networks, |id| format!("/v1/networks/{id}"), converge).await
}
