//! **Effect.** `mesh network ls`.

use crate::api::types::Network;
use crate::cli::format::{self, Column, FormatArg};
use crate::cli::table::short;
use crate::cli::{OK, Session};

const COLUMNS: &[Column] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Subnets", "SUBNETS"),
];

/// List networks
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only display network IDs
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: LsArgs, session: Session) -> anyhow::Result<u8> {
    let networks: Vec<Network> = session.client.get("/v1/networks").await?;
    if args.quiet && args.format.format.is_none() {
        networks.iter().for_each(|network| session.out.line(short(&network.id)));
        return Ok(OK);
    }
    let rows = networks.into_iter().map(|network| {
        let subnets: Vec<_> = network.ipam.config.iter().map(|config| config.subnet.to_string()).collect();
        vec![short(&network.id).to_owned(), network.name, network.driver, network.scope, subnets.join(", ")]
    });
    format::list(&session.out, args.format.format.as_ref(), COLUMNS, rows.collect())?;
    Ok(OK)
}
