//! What nodes found when they compared their kernels with the plan.

use std::collections::BTreeMap;

use mesh_core::model::{self, Verified};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct VerifyRequest {
    /// Whether what differs is to be mended.
    #[serde(default)]
    pub repair: bool,
}

/// What all nodes found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Verification {
    /// Whether every node answered, and is as planned now.
    pub ok: bool,
    /// By name.
    pub nodes: Vec<NodeVerification>,
}

/// What one node found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeVerification {
    /// Its id.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Its name.
    pub hostname: String,
    /// It did, in time.
    pub answered: bool,
    /// How many objects in its kernel were not as planned.
    pub found: u64,
    /// How many are so still, after the repair that was asked for.
    pub left: u64,
    /// The first of them: what it is, and what is wrong with it.
    pub differences: BTreeMap<String, String>,
}

impl Verification {
    /// Of all nodes' answers.
    pub fn of<'a>(nodes: impl Iterator<Item = (&'a model::Node, Option<&'a Verified>)>) -> Self {
        let mut nodes: Vec<_> = nodes.map(|(node, found)| NodeVerification::of(node, found)).collect();
        nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        Self { ok: nodes.iter().all(|node| node.answered && node.left == 0), nodes }
    }
}

impl NodeVerification {
    fn of(node: &model::Node, found: Option<&Verified>) -> Self {
        let answered = found.is_some();
        let Verified { id: _, differences, count, left } = found.cloned().unwrap_or_default();
        let (node_id, hostname) = (node.id.to_string(), node.name.to_string());
        Self { node_id, hostname, answered, found: count, left, differences }
    }
}
