//! What depends on the data plane in use.

use anyhow::{Result, ensure};
use mesh_tests::{Lab, Node};
use serde_json::Value;

use super::{Cli, mentions};

/// Whether a promise that only the eBPF plane makes holds in this lab. Where it does not, `mesh status` has to name
/// the limit, in these words, on every node: a test that has nothing else to look at still looks at that.
pub(crate) fn on_ebpf(lab: &Lab, limit: &[&str]) -> Result<bool> {
    if lab.dataplane() != Some("nft") {
        return Ok(true);
    }
    for node in lab.nodes() {
        mentions(&node.ok("status")?, limit)?;
    }
    Ok(false)
}

/// What a node says of itself.
pub(crate) fn status(node: &Node) -> Result<Value> {
    node.mesh_json(["status"])
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
