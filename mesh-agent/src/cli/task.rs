//! **Effect.** `mesh task`.

mod add;
mod drain;
pub(super) mod exec;
mod inspect;
mod ls;
mod rm;
pub(super) mod rows;
pub(super) mod run;
mod stat;
mod supervise;
mod update;

use super::Session;
pub(in crate::cli) use supervise::resolv;

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl Switch {
    fn is_off(self) -> bool {
        self == Self::Off
    }
}

/// Manage tasks
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    Run(Box<run::RunArgs>),
    Add(add::AddArgs),
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    Update(update::UpdateArgs),
    Drain(drain::DrainArgs),
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
}

pub(super) async fn run(verb: Verb, session: Session) -> anyhow::Result<u8> {
    match verb {
        Verb::Run(_) => anyhow::bail!("a task is not run inside a runtime"),
        Verb::Add(args) => add::run(args, session).await,
        Verb::Ls(args) => ls::run(args, session).await,
        Verb::Inspect(args) => inspect::run(args, session).await,
        Verb::Update(args) => update::run(args, session).await,
        Verb::Drain(args) => drain::run(args, session).await,
        Verb::Rm(args) => rm::run(args, session).await,
    }
}
