//! **Fact.** Nodes on the wire: Docker's `Node`.

use std::collections::BTreeMap;

use mesh_core::kv::Rev;
use mesh_core::liveness::{Echo, Verdict};
use mesh_core::model;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Availability, NodeStatus, rfc3339};

/// What the operator wants of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeSpec {
    /// Free text.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes part.
    pub availability: Availability,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeDescription {
    /// Its name.
    pub hostname: String,
    /// The agent's version.
    pub agent_version: String,
    /// The MTU of its uplink, measured.
    #[serde(rename = "UplinkMTU")]
    pub uplink_mtu: u32,
    /// The UDP port of its tunnel.
    #[serde(rename = "VXLANPort")]
    pub vxlan_port: u16,
    /// How often its agent started.
    pub epoch: u64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// When its agent started (RFC 3339).
    pub started_at: String,
    /// What the operator wants.
    pub spec: NodeSpec,
    /// What it is.
    pub description: NodeDescription,
    /// How it fares.
    pub status: NodeStatus,
    /// Whether it is the node that was asked.
    #[serde(rename = "Self")]
    pub this: bool,
}

/// What to change of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NodeUpdate {
    /// Whether it takes part.
    pub availability: Availability,
}

impl Node {
    /// A node as the world has it. `own` is what the asked node itself has applied: it knows that better than
    /// the world, which hears of it now and then. `silent`: how it does not answer the asked one, `echo`: what its kernel
    /// says of it.
    pub fn of(
        world: &model::Snapshot,
        node: &model::Node,
        own: Option<Rev>,
        silent: Option<Verdict>,
        echo: Option<Echo>,
    ) -> Self {
        let model::Node {
            id,
            name,
            address: _,
            vxlan_port,
            epoch,
            boot: _,
            uplink_mtu,
            listeners: _,
            routes: _,
            version,
            started,
            key: _,
            reflects: _,
            left: _,
        } = node;
        Self {
            id: id.to_string(),
            started_at: rfc3339(*started),
            spec: NodeSpec {
                labels: world.specs.get(id).map(|spec| spec.labels.clone()).unwrap_or_default(),
                availability: world.availability(id).into(),
            },
            description: NodeDescription {
                hostname: name.to_string(),
                agent_version: version.clone(),
                uplink_mtu: *uplink_mtu,
                vxlan_port: *vxlan_port,
                epoch: *epoch,
            },
            status: NodeStatus::of(world, node, own, silent, echo),
            this: own.is_some(),
        }
    }
}
