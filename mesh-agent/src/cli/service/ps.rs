//! **Effect.** `mesh service ps`.

use crate::api::types::{Service, Task};
use crate::cli::format::FormatArg;
use crate::cli::several::encode;
use crate::cli::task::rows;
use crate::cli::{OK, Session};

/// List the tasks of a service
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PsArgs {
    /// Only display task IDs
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
    /// Name or ID
    #[arg(value_name = "SERVICE")]
    service: String,
}

pub(super) async fn run(args: PsArgs, session: Session) -> anyhow::Result<u8> {
    let tasks: Vec<Task> =
        session.client.get(&format!("/v1/services/{}/tasks", encode(&args.service))).await?;
    rows::print(&session.out, args.quiet, args.format.format.as_ref(), &tasks)?;
    if !args.quiet {
        let service: Service = session.client.get(&format!("/v1/services/{}", encode(&args.service))).await?;
        super::lacks(&[service]).iter().for_each(|line| session.out.say(line));
    }
    Ok(OK)
}
