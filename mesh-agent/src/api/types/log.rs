//! **Fact.** What `/v1/services/{id}/logs` tells, a line each.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere: the mesh says so itself.
    Mesh,
}

/// A line of what a task printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct LogLine {
    /// When (RFC 3339), where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time: String,
    /// By whom: `web.1`.
    pub task: String,
    /// The task's node.
    pub node: String,
    /// Where.
    pub stream: LogStream,
    /// What, without the end of the line. What is no UTF-8 is told as U+FFFD; what has more than 16 KiB comes in pieces.
    pub line: String,
}
