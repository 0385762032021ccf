//! **Effect.** `mesh cluster init`, `join`, `token`, `leave`.

use serde_json::{Value, json};

use super::{show_token, wait};
use crate::api::types::{ClusterJoin, ClusterLeave, ClusterToken, Status};
use crate::cli::{OK, Session};

/// Initialize a cluster: this node becomes its first manager, with all records that it has
///
/// etcd runs on the managers, and the mesh looks after it. Traffic goes on meanwhile.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InitArgs {}

/// Join a cluster as a worker
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct JoinArgs {
    /// As 'mesh cluster init' and 'mesh cluster token worker' print it
    #[arg(value_name = "TOKEN@HOST:PORT")]
    token: String,
}

/// Show what other nodes join with
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TokenArgs {
    /// Only display the token
    #[arg(short, long)]
    quiet: bool,
    /// As what they join
    #[arg(value_enum)]
    role: TokenRole,
}

/// As what a node joins.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(in crate::cli) enum TokenRole {
    /// It gets the records from a manager
    Worker,
}

/// Leave the cluster: this node becomes a mesh of its own, without records
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LeaveArgs {
    /// Even if the node is a manager, runs tasks, or cannot tell the others
    #[arg(short, long)]
    force: bool,
}

pub(super) async fn init(session: Session) -> anyhow::Result<u8> {
    let token: ClusterToken = session.client.post("/v1/cluster/init", &json!({})).await?;
    began(&session, &token).await
}

/// Waits for a node that became the first manager, and says so.
pub(super) async fn began(session: &Session, token: &ClusterToken) -> anyhow::Result<u8> {
    let status = wait::until_engine_is(session, "managed").await?;
    session.out.line(format!("Cluster initialized: current node ({}) is now a manager.\n", status.node_id));
    show_token(session, token);
    Ok(OK)
}

pub(super) async fn join(args: JoinArgs, session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/join", &ClusterJoin { token: args.token }).await?;
    wait::until_engine_is(&session, "gateway").await?;
    session.out.line("This node joined a cluster as a worker.");
    Ok(OK)
}

pub(super) async fn token(args: TokenArgs, session: Session) -> anyhow::Result<u8> {
    let TokenRole::Worker = args.role;
    let token: ClusterToken = session.client.get("/v1/cluster/token").await?;
    if args.quiet { session.out.line(&token.token) } else { show_token(&session, &token) }
    Ok(OK)
}

pub(super) async fn leave(args: LeaveArgs, session: Session) -> anyhow::Result<u8> {
    let _: Value = session.client.post("/v1/cluster/leave", &ClusterLeave { force: args.force }).await?;
    let _: Status = wait::until_engine_is(&session, "local").await?;
    session.out.line("Node left the cluster.");
    Ok(OK)
}
