//! **Effect.** `mesh service ls`.

use crate::api::types::{EndpointMode, Service};
use crate::cli::format::{self, Column, FormatArg};
use crate::cli::ports::fold;
use crate::cli::table::short;
use crate::cli::{OK, Session};

const COLUMNS: &[Column] =
    &[("ID", "ID"), ("Name", "NAME"), ("Mode", "MODE"), ("Replicas", "REPLICAS"), ("Ports", "PORTS")];

/// List services
///
/// REPLICAS counts the tasks that get new flows, and all that are registered.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: LsArgs, session: Session) -> anyhow::Result<u8> {
    let services: Vec<Service> = session.client.get("/v1/services").await?;
    if args.quiet && args.format.format.is_none() {
        services.iter().for_each(|service| session.out.line(short(&service.id)));
        return Ok(OK);
    }
    let shortages = super::lacks(&services);
    let rows = services.into_iter().map(|service| {
        let mode = service.spec.endpoint_spec.mode.unwrap_or(EndpointMode::Vip);
        let status = &service.service_status;
        vec![
            short(&service.id).to_owned(),
            service.spec.name,
            mode.as_str().to_owned(),
            format!("{}/{}", status.running_tasks, status.desired_tasks),
            fold(&service.endpoint.ports),
        ]
    });
    format::list(&session.out, args.format.format.as_ref(), COLUMNS, rows.collect())?;
    shortages.iter().for_each(|line| session.out.say(line));
    Ok(OK)
}
