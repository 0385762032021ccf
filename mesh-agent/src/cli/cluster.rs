//! **Effect.** `mesh cluster`: `docker swarm`'s verbs, and what keeps the records safe.

mod backup;
mod begin;
mod ca;
mod recover;
mod status;
mod wait;

use serde_json::json;

use super::{OK, Session, several};
use crate::api::types::{Changed, ClusterToken};

/// Manage the cluster of nodes that keep the records
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    Init(begin::InitArgs),
    Join(begin::JoinArgs),
    Status(status::StatusArgs),
    Token(begin::TokenArgs),
    Ca(ca::CaArgs),
    Promote(PromoteArgs),
    Demote(DemoteArgs),
    Leave(begin::LeaveArgs),
    Backup(backup::BackupArgs),
    Restore(backup::RestoreArgs),
    Recover(recover::RecoverArgs),
}

/// Promote one or more nodes to manager in the cluster
#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// Exit at once instead of waiting until they are managers
    #[arg(short, long)]
    detach: bool,
    /// Names or IDs
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

/// Demote one or more managers to worker
#[derive(Debug, clap::Args)]
pub(super) struct DemoteArgs {
    /// Exit at once instead of waiting until they are workers
    #[arg(short, long)]
    detach: bool,
    /// Names or IDs
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(super) async fn run(verb: Verb, session: Session) -> anyhow::Result<u8> {
    match verb {
        Verb::Init(_) => begin::init(session).await,
        Verb::Join(args) => begin::join(args, session).await,
        Verb::Status(args) => status::run(args, session).await,
        Verb::Token(args) => begin::token(args, session).await,
        Verb::Ca(args) => ca::run(args, session).await,
        Verb::Promote(args) => change(&session, "promote", &args.nodes, args.detach).await,
        Verb::Demote(args) => change(&session, "demote", &args.nodes, args.detach).await,
        Verb::Leave(args) => begin::leave(args, session).await,
        Verb::Backup(args) => backup::backup(args, session).await,
        Verb::Restore(args) => backup::restore(args, session).await,
        Verb::Recover(args) => recover::run(args, session).await,
    }
}

async fn change(session: &Session, verb: &str, nodes: &[String], detach: bool) -> anyhow::Result<u8> {
    let mut code = OK;
    let mut done = Vec::new();
    for node in nodes {
        let path = format!("/v1/cluster/{verb}");
        match session.client.post::<Changed>(&path, &json!({ "Node": node })).await {
            Ok(changed) => {
                session.out.line(match verb {
                    "promote" => format!("Node {node} promoted to a manager in the cluster."),
                    _ => format!("Manager {node} demoted in the cluster."),
                });
                done.push(changed);
            }
            Err(error) => code = several::report(session, error)?,
        }
    }
    if !detach && !done.is_empty() {
        wait::until_members_are(session, verb == "promote", &done).await?;
    }
    Ok(code)
}

/// How others join.
fn show_token(session: &Session, role: &str, token: &ClusterToken) {
    session.out.line(format!("To add a {role} to this cluster, run the following command:\n"));
    session.out.line(format!("    mesh cluster join {}\n", token.token));
    session
        .out
        .line("With 'mesh cluster join -' it is read from standard input, and is in no list of processes.\n");
}
