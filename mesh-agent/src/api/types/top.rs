//! **Fact.** What `mesh top` is told: all that the web page is, and what the node counted.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::model::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Sum, WebState};

/// The mesh as one node sees it at one moment, and what that node sent to tasks until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Top {
    /// The mesh.
    pub state: WebState,
    /// What the node's data plane counted; left out where it counts nothing, or could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<TopCounted>,
}

/// What a node sent to tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TopCounted {
    /// When, in microseconds of a clock of the node which is never set: two of them tell how far apart they are.
    pub at: u64,
    /// By id of the task; who is in no balance is left out.
    pub tasks: BTreeMap<String, TopCounts>,
}

/// What a node sent to a task, by all of its addresses, since it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TopCounts {
    /// New flows.
    pub flows: u64,
    /// Packets to it.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Flows that there are.
    pub active: u64,
}

impl TopCounted {
    /// What was counted at a moment of the node's clock.
    pub fn of(at: Duration, sums: &BTreeMap<TaskId, Sum>) -> Self {
        let counts = |(id, sum): (&TaskId, &Sum)| {
            let Sum { flows, packets, bytes, active } = *sum;
            (id.to_string(), TopCounts { flows, packets, bytes, active })
        };
        Self {
            at: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            tasks: sums.iter().map(counts).collect(),
        }
    }
}
