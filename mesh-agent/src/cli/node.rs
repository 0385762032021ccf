//! **Effect.** `mesh node`.

mod inspect;
mod ls;
mod rm;
mod update;

use super::Session;

/// Manage nodes
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    Update(update::UpdateArgs),
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
}

pub(super) async fn run(verb: Verb, session: Session) -> anyhow::Result<u8> {
    match verb {
        Verb::Ls(args) => ls::run(args, session).await,
        Verb::Inspect(args) => inspect::run(args, session).await,
        Verb::Update(args) => update::run(args, session).await,
        Verb::Rm(args) => rm::run(args, session).await,
    }
}

/// `Ready`, `Active`: words in tables begin with a capital letter, as Docker's.
fn title(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}
