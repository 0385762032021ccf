//! **Fact.** What `/v1/watch` tells, a line each.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Network, Node, Service, Task};

/// What a line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchAction {
    /// Forget what was told before: what follows is all that there is.
    Reset,
    /// It is new, or has changed: this is what it is now.
    Set,
    /// It is no more.
    Remove,
    /// All up to this revision has been told. It is where to go on from, and comes every few seconds.
    Synced,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WatchKind {
    /// A network.
    Network,
    /// A service: it, or its tasks.
    Service,
    /// A task: it, or whether it gets flows.
    Task,
    /// A node.
    Node,
}

/// A line of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WatchEvent {
    /// The records' revision.
    pub revision: u64,
    /// What happened.
    pub action: WatchAction,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<WatchKind>,
    /// To which.
    #[serde(rename = "ID", default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,
    /// What it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// What it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
}

impl WatchEvent {
    /// A line about nothing in particular.
    pub fn of(action: WatchAction, revision: u64) -> Self {
        let id = String::new();
        Self { revision, action, kind: None, id, network: None, service: None, task: None, node: None }
    }
}
