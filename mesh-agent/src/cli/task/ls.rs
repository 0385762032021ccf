//! **Effect.** `mesh task ls`.

use super::rows;
use crate::api::types::Task;
use crate::cli::format::FormatArg;
use crate::cli::{OK, Session};

/// List the tasks of all nodes
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: LsArgs, session: Session) -> anyhow::Result<u8> {
    let tasks: Vec<Task> = session.client.get("/v1/tasks").await?;
    rows::print(&session.out, args.quiet, args.format.format.as_ref(), &tasks)?;
    Ok(OK)
}
