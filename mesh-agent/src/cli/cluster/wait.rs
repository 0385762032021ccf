//! **Effect.** Waits until a node is what it is to be: its agent starts anew meanwhile.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

use crate::api::client::ClientError;
use crate::api::types::{Changed, Cluster, Node, Status};
use crate::cli::Session;

/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the agent has its records by an engine, and is in the mesh.
pub(super) async fn until_engine_is(session: &Session, engine: &str) -> anyhow::Result<Status> {
    let deadline = Instant::now() + PATIENCE;
    let mut said = "it does not answer".to_owned();
    while Instant::now() < deadline {
        match session.client.get::<Status>("/v1/status").await {
            Ok(status) if status.store.engine != engine => {
                "its agent has not started anew".clone_into(&mut said)
            }
            Ok(status) if status.store.connected && !status.node_name.is_empty() => return Ok(status),
            Ok(status) => {
                said = if status.store.problem.is_empty() {
                    "it is not in the mesh yet".to_owned()
                } else {
                    status.store.problem
                };
            }
            Err(error) => said = error.to_string(),
        }
        sleep(LOOK).await;
    }
    bail!("it was done, but this node is not back after {} s: {said}; see 'mesh status'", PATIENCE.as_secs())
}

/// How often this node's agent has started.
pub(super) async fn starts(session: &Session) -> anyhow::Result<u64> {
    Ok(session.client.get::<Node>("/v1/nodes/self").await?.description.epoch)
}

/// Waits until this node's agent has started once more than that, and has its records.
pub(super) async fn until_started_again(
    session: &Session,
    before: u64,
    engine: &str,
) -> anyhow::Result<Status> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline && !starts(session).await.is_ok_and(|starts| starts > before) {
        sleep(LOOK).await;
    }
    until_engine_is(session, engine).await
}

/// Waits until nodes are members that have a vote, or are none.
pub(super) async fn until_members_are(
    session: &Session,
    members: bool,
    nodes: &[Changed],
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut waits = String::new();
    let mut told = String::new();
    while Instant::now() < deadline {
        match session.client.get::<Cluster>("/v1/cluster").await {
            Ok(cluster) => {
                let is_done = |changed: &&Changed| {
                    let node = cluster.nodes.iter().find(|node| node.node_id == changed.id);
                    let member = node.and_then(|node| node.member.as_ref());
                    match members {
                        true => member.is_some_and(|member| member.status == "reachable"),
                        false => member.is_none(),
                    }
                };
                if nodes.iter().all(|node| is_done(&node)) {
                    if !cluster.warning.is_empty() {
                        session.out.say(format!("Warning: {}", cluster.warning));
                    }
                    return Ok(());
                }
                waits = cluster.waits;
            }
            // The node that was asked may be the one that is changed.
            Err(error @ ClientError::Refused { .. }) if !error.is_passing() => return Err(error.into()),
            Err(error) => waits = error.to_string(),
        }
        if !waits.is_empty() && waits != told {
            session.out.progress(&waits);
            told.clone_from(&waits);
        }
        sleep(LOOK).await;
    }
    bail!("it is asked for, but not done after {} s: {waits}; see 'mesh cluster status'", PATIENCE.as_secs())
}
