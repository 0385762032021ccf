//! **Effect.** `mesh service`.

mod create;
mod inspect;
mod logs;
mod ls;
mod ps;
mod rm;
mod scale;
mod update;

use super::Session;
use crate::api::types::{Service, Shortage};

/// Manage services
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    Create(Box<create::CreateArgs>),
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    Ps(ps::PsArgs),
    Inspect(inspect::InspectArgs),
    Logs(logs::LogsArgs),
    Update(Box<update::UpdateArgs>),
    Scale(scale::ScaleArgs),
    #[command(visible_alias = "remove")]
    Rm(rm::RmArgs),
}

pub(super) async fn run(verb: Verb, session: Session) -> anyhow::Result<u8> {
    match verb {
        Verb::Create(args) => create::run(*args, session).await,
        Verb::Ls(args) => ls::run(args, session).await,
        Verb::Ps(args) => ps::run(args, session).await,
        Verb::Inspect(args) => inspect::run(args, session).await,
        Verb::Logs(args) => logs::run(args, session).await,
        Verb::Update(args) => update::run(*args, session).await,
        Verb::Scale(args) => scale::run(args, session).await,
        Verb::Rm(args) => rm::run(args, session).await,
    }
}

/// What services lack, a line each.
fn lacks(services: &[Service]) -> Vec<String> {
    let all = services
        .iter()
        .flat_map(|service| service.shortages.iter().map(move |lack| (&service.spec.name, lack)));
    all.map(|(name, Shortage { object, reason, cure })| format!("service {name}: {object}: {reason}; {cure}"))
        .collect()
}
