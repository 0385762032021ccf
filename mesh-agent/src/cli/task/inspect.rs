//! **Effect.** `mesh task inspect`.

use crate::cli::format::FormatArg;
use crate::cli::{Session, several};

/// Display detailed information on one or more tasks
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    format: FormatArg,
    /// Names such as web.1, or IDs
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
}

pub(super) async fn run(args: InspectArgs, session: Session) -> anyhow::Result<u8> {
    let path = |id: &str| format!("/v1/tasks/{id}");
    several::inspect(&session, &args.tasks, path, args.format.format.as_ref(), "Task").await
}
