//! **Effect.** Waits until every node that shows life forwards as a change says, and shows how far that is.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::Session;
use crate::api::types::Node;

/// A mesh is as good as its slowest node; one that lags for so long is a fault to be told.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Waits for a revision to be applied everywhere. `what` is what converged: `Service`.
pub(super) async fn wait(session: &Session, what: &str, revision: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut shown = None;
    loop {
        let nodes: Vec<Node> = session.client.get("/v1/nodes").await?;
        let live: Vec<_> = nodes.iter().filter(|node| node.status.state == "ready").collect();
        let done = live.iter().filter(|node| node.status.applied_revision >= revision).count();
        if shown != Some((done, live.len())) {
            session.out.progress(&format!("overall progress: {done} out of {} nodes", live.len()));
            shown = Some((done, live.len()));
        }
        if done == live.len() {
            session.out.done(&format!("verify: {what} converged"));
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            bail!(late(&nodes, revision));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Which nodes lag, and what they say is wrong.
pub(super) fn late(nodes: &[Node], revision: u64) -> String {
    let live = nodes.iter().filter(|node| node.status.state == "ready");
    let lag = live.filter(|node| node.status.applied_revision < revision).map(|node| {
        let problems = node.status.problems.join("; ");
        let why = if problems.is_empty() { String::new() } else { format!(": {problems}") };
        format!("{} (at revision {}{why})", node.description.hostname, node.status.applied_revision)
    });
    format!(
        "the change was made (revision {revision}), but after {} s these nodes have not applied it: {}; \
         they go on trying, see 'mesh status' there",
        PATIENCE.as_secs(),
        lag.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{Availability, NodeDescription, NodeSpec, NodeStatus};

    #[test]
    fn late_nodes_are_named_with_their_problems() {
        let node = |name: &str, applied_revision, problems: &[&str]| Node {
            id: name.to_owned(),
            started_at: String::new(),
            spec: NodeSpec { labels: Default::default(), availability: Availability::Active },
            description: NodeDescription {
                hostname: name.to_owned(),
                agent_version: String::new(),
                uplink_mtu: 1500,
                vxlan_port: 4789,
                epoch: 1,
            },
            status: NodeStatus {
                state: "ready".to_owned(),
                addr: String::new(),
                applied_revision,
                problems: problems.iter().map(|p| (*p).to_owned()).collect(),
                message: Default::default(),
                down_by: Default::default(),
                agent_age: Default::default(),
            },
            this: false,
        };
        let (a, b, c) = (node("n1", 9, &[]), node("n2", 7, &[]), node("n3", 8, &["no nft"]));
        let message = late(&[a, b, c], 9);
        assert!(message.contains("n2 (at revision 7), n3 (at revision 8: no nft);"), "{message}");
    }
}
