//! **Fact.** What the probes of a task said, on the wire: `State.Health` of Docker's containers.

use mesh_core::health::{History, Probed};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Health, rfc3339};

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct HealthcheckResult {
    /// When it began (RFC 3339).
    pub start: String,
    /// When it ended (RFC 3339).
    pub end: String,
    /// Of a command its own; else 0 for success, 1 for failure; -1 when it took too long.
    pub exit_code: i32,
    /// What a command printed, the first 4,096 bytes of it; a status, or what went wrong.
    pub output: String,
}

/// What its last probes said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TaskHealth {
    /// What follows.
    pub status: Health,
    /// Failures in a row that count.
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<HealthcheckResult>,
}

/// What a task's own node knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TaskLife {
    /// What its last probes said.
    pub health: TaskHealth,
}

impl TaskLife {
    /// Of a task with this health.
    pub fn of(status: Health, history: History) -> Self {
        let History { streak, log } = history;
        let result = |Probed { start, end, exit_code, output }: Probed| HealthcheckResult {
            start: rfc3339(start),
            end: rfc3339(end),
            exit_code,
            output,
        };
        Self {
            health: TaskHealth { status, failing_streak: streak, log: log.into_iter().map(result).collect() },
        }
    }
}
