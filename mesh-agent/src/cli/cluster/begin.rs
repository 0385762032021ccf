//! **Effect.** `mesh cluster init`, `join`, `token`, `leave`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{show_token, wait};
use crate::api::types::{ClusterJoin, ClusterLeave, ClusterToken, Status, parse_duration};
use crate::cli::{OK, Session};

/// Initialize a cluster: this node becomes its first manager, with all records that it has
///
/// etcd runs on the managers, and the mesh looks after it. Traffic goes on meanwhile.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InitArgs {}

/// Join a cluster, as what the token says: worker or manager
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct JoinArgs {
    /// As 'mesh cluster init' and 'mesh cluster token worker' print it
    #[arg(value_name = "TOKEN@HOST:PORT")]
    token: String,
}

/// Make a token that other nodes join with
///
/// It is shown once: who needs it again makes another one.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TokenArgs {
    /// Only display the token
    #[arg(short, long)]
    quiet: bool,
    /// End all earlier tokens of the role
    #[arg(long)]
    rotate: bool,
    /// How long it is good; 0s: until it is replaced
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    expiry: Duration,
    /// How many nodes may join with it; 0: any number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    uses: u32,
    /// As what they join
    #[arg(value_enum)]
    role: TokenRole,
}

/// As what a node joins.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::cli) enum TokenRole {
    /// It gets the records from a manager
    Worker,
    /// It keeps them, too
    Manager,
}

/// Leave the cluster: this node becomes a mesh of its own, without records
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LeaveArgs {
    /// Even if the node is a manager, runs tasks, or cannot tell the others
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn init(session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/init", &json!({})).await?;
    began(&session).await
}

/// Waits for a node that became the first manager, and says so.
pub(super) async fn began(session: &Session) -> anyhow::Result<u8> {
    let status = wait::until_engine_is(session, "managed").await?;
    session.out.line(format!("Cluster initialized: current node ({}) is now a manager.\n", status.node_id));
    let token = make_token(session, json!({ "Role": "worker" })).await?;
    show_token(session, "worker", &token);
    session.out.line("To add a manager, run 'mesh cluster token manager' and follow the instructions.");
    Ok(OK)
}

async fn make_token(session: &Session, request: Value) -> anyhow::Result<ClusterToken> {
    Ok(session.client.post("/v1/cluster/token", &request).await?)
}

pub(super) async fn join(args: JoinArgs, session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/join", &ClusterJoin { token: args.token }).await?;
    wait::until_engine_is(&session, "gateway").await?;
    session.out.line("This node joined a cluster.");
    Ok(OK)
}

pub(super) async fn token(args: TokenArgs, session: Session) -> anyhow::Result<u8> {
    let TokenArgs { quiet, rotate, expiry, uses, role } = args;
    let role = match role {
        TokenRole::Worker => "worker",
        TokenRole::Manager => "manager",
    };
    let request = json!({ "Role": role, "Expiry": expiry.as_secs(), "Uses": uses, "Rotate": rotate });
    let token = make_token(&session, request).await?;
    if quiet {
        session.out.line(&token.token)
    } else {
        show_token(&session, role, &token)
    }
    Ok(OK)
}

pub(super) async fn leave(args: LeaveArgs, session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/leave", &ClusterLeave { force: args.force }).await?;
    let _: Status = wait::until_engine_is(&session, "local").await?;
    session.out.line("Node left the cluster.");
    Ok(OK)
}
