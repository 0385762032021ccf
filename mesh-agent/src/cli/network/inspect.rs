//! **Effect.** `mesh network inspect`.

use crate::cli::format::FormatArg;
use crate::cli::{Session, several};

/// Display detailed information on one or more networks
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// With the services, tasks and peers of the network
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    format: FormatArg,
    /// Names or IDs
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

pub(super) async fn run(args: InspectArgs, session: Session) -> anyhow::Result<u8> {
    let query = if args.verbose { "?verbose" } else { "" };
    let path = |id: &str| format!("/v1/networks/{id}{query}");
    several::inspect(&session, &args.networks, path, args.format.format.as_ref(), "Network").await
}
