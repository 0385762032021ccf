//! **Fact.** How a node fares, on the wire: Docker's `NodeStatus`.

use mesh_core::kv::Rev;
use mesh_core::liveness::{AGENT_LATE, Echo, Verdict};
use mesh_core::model::{Node, NodeId, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a node fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeStatus {
    /// `ready`; `down` when the node does not answer or has left, `disconnected` when it answers, but others only or not
    /// through the tunnel; `leaving` when it says so; `unknown` when its agent has shown no life for a while, though its
    /// traffic may flow all the same.
    pub state: String,
    /// Why, unless it is ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where other nodes reach it.
    pub addr: String,
    /// Everything up to this revision is in its kernel.
    pub applied_revision: u64,
    /// The managers that agree that it is dead, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub down_by: Vec<String>,
    /// How long its agent has said nothing to its kernel, ms; none: its kernel does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_age: Option<u64>,
    /// What is wrong on it, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl NodeStatus {
    /// See [`super::Node::of`].
    pub fn of(
        world: &Snapshot,
        node: &Node,
        own: Option<Rev>,
        silent: Option<Verdict>,
        echo: Option<Echo>,
    ) -> Self {
        let live = world.live.get(&node.id);
        let name = |id: &NodeId| world.nodes.get(id).map_or_else(|| id.to_string(), |n| n.name.to_string());
        let down = world.downs.get(&node.id).filter(|down| down.epoch == node.epoch);
        let mut down_by: Vec<_> = down.iter().flat_map(|down| down.by.iter().map(name)).collect();
        down_by.sort_unstable();
        let (state, message) = match silent {
            _ if node.left => ("down", "it has left the mesh; 'mesh node rm' removes it".to_owned()),
            Some(Verdict::PathDown) => {
                ("disconnected", "it answers other nodes, and not this one".to_owned())
            }
            Some(Verdict::TunnelDown) => {
                ("disconnected", "it answers, but not through the tunnel".to_owned())
            }
            Some(Verdict::Leaving) => ("leaving", "it says itself that it leaves or is drained".to_owned()),
            Some(Verdict::Rebooted) => {
                ("down", "it was started anew, and its agent is not there yet".to_owned())
            }
            Some(Verdict::AgreedDown) => ("down", format!("it does not answer {}", down_by.join(", "))),
            Some(_) => ("down", "it does not answer this node".to_owned()),
            None if echo.is_some_and(|echo| echo.age > AGENT_LATE) => {
                ("unknown", "its agent is dead or stuck; its traffic flows all the same".to_owned())
            }
            None if live.is_some() || own.is_some() => ("ready", String::new()),
            None => ("unknown", "its agent shows no life; its traffic may flow all the same".to_owned()),
        };
        let applied = live.map(|live| live.applied).unwrap_or_default().max(own.unwrap_or_default());
        Self {
            state: state.to_owned(),
            message,
            addr: node.address.to_string(),
            applied_revision: applied.0,
            down_by,
            agent_age: echo.map(|echo| echo.age),
            problems: live.map(|live| live.problems.clone()).unwrap_or_default(),
        }
    }
}
