//! What depends on the data plane in use.

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node, eventually};
use serde_json::Value;

use super::{Cli, SOON, mentions};

/// Whether a promise that only the eBPF plane makes holds in this lab. Where it does not, `mesh status` has to name
/// the limit, in these words, on every node: a test that has nothing else to look at still looks at that.
pub(crate) fn on_ebpf(lab: &Lab, limit: &[&str]) -> Result<bool> {
    if lab.dataplane() != Some("nft") {
        return Ok(true);
    }
    for node in lab.nodes() {
        status(node)?;
        mentions(&node.ok("status")?, limit)?;
    }
    Ok(false)
}

/// What a node says of itself once it does all that it knows of; before its first round it has no planes to tell of.
pub(crate) fn status(node: &Node) -> Result<Value> {
    eventually(SOON, "the node does what it knows of", || {
        let status = node.mesh_json(["status"])?;
        let done = status["AppliedRevision"].as_u64() >= status["WantedRevision"].as_u64();
        ensure!(done && status["Planes"].as_object().is_some_and(|planes| !planes.is_empty()), "{status}");
        Ok(status)
    })
}

/// The names of the planes of a node.
pub(crate) fn planes(node: &Node) -> Result<Vec<String>> {
    let status = status(node)?;
    let planes = status["Planes"].as_object();
    ensure!(planes.is_some(), "no planes: {status}");
    Ok(planes.into_iter().flatten().map(|(name, _)| name.clone()).collect())
}

/// The limit about the client's address at a task of another node.
pub(crate) const CLIENT_ADDRESS: &[&str] = &["another node", "overlay address instead of the client's"];
