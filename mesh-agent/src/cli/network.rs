//! **Effect.** `mesh network`.

mod create;
mod inspect;
mod ls;
mod rm;

use super::Session;

/// Manage networks
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    Create(create::CreateArgs),
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
}

pub(super) async fn run(verb: Verb, session: Session) -> anyhow::Result<u8> {
    match verb {
        Verb::Create(args) => create::run(args, session).await,
        Verb::Ls(args) => ls::run(args, session).await,
        Verb::Inspect(args) => inspect::run(args, session).await,
        Verb::Rm(args) => rm::run(args, session).await,
    }
}
