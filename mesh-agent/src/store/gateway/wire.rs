//! **Fact.** What goes over the wire between a gateway and its clients.

use mesh_core::kv::{Batch, InvalidTxn, LeaseId, Rev};
use serde::{Deserialize, Serialize};

use crate::store::{StoreError, WatchEnd};

/// The head in which a client says which store it means, so that nothing is ever written to another one.
pub(super) const CLUSTER: &str = "mesh-cluster";

/// Why a request was refused.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    Invalid(InvalidTxn),
    LeaseGone(LeaseId),
    /// It is another store than the client means.
    WrongCluster(String),
    Unavailable(String),
    Denied(String),
    /// Who asks is known, and may not do this.
    Forbidden(String),
    Corrupt(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(invalid) => Self::Invalid(invalid),
            StoreError::LeaseGone(lease) => Self::LeaseGone(lease),
            error @ StoreError::Unavailable { .. } => Self::Unavailable(error.to_string()),
            error @ StoreError::Denied { .. } => Self::Denied(error.to_string()),
            error @ StoreError::Corrupt { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

impl Refusal {
    /// As the client's caller sees it.
    pub(super) fn into_store_error(self, at: &str) -> StoreError {
        let at = at.to_owned();
        match self {
            Self::Invalid(invalid) => StoreError::Invalid(invalid),
            Self::LeaseGone(lease) => StoreError::LeaseGone(lease),
            Self::WrongCluster(found) => StoreError::Denied {
                at,
                why: format!(
                    "it is now another store ({found}) than this agent began with; nothing was done"
                ),
            },
            Self::Unavailable(why) => StoreError::Unavailable { at, why },
            Self::Denied(why) | Self::Forbidden(why) => StoreError::Denied { at, why },
            Self::Corrupt(why) => StoreError::Corrupt { at, why },
        }
    }
}

/// One line of a watch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Batch(Batch),
    Compacted(Rev),
    Lost(String),
    WrongCluster,
    WentBack(Rev),
}

impl From<Result<Batch, WatchEnd>> for Line {
    fn from(item: Result<Batch, WatchEnd>) -> Self {
        match item {
            Ok(batch) => Self::Batch(batch),
            Err(WatchEnd::Compacted(rev)) => Self::Compacted(rev),
            Err(WatchEnd::Lost(why)) => Self::Lost(why),
            Err(WatchEnd::WrongCluster) => Self::WrongCluster,
            Err(WatchEnd::WentBack(rev)) => Self::WentBack(rev),
        }
    }
}

impl From<Line> for Result<Batch, WatchEnd> {
    fn from(line: Line) -> Self {
        match line {
            Line::Batch(batch) => Ok(batch),
            Line::Compacted(rev) => Err(WatchEnd::Compacted(rev)),
            Line::Lost(why) => Err(WatchEnd::Lost(why)),
            Line::WrongCluster => Err(WatchEnd::WrongCluster),
            Line::WentBack(rev) => Err(WatchEnd::WentBack(rev)),
        }
    }
}

/// What a list or a watch asks for.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    pub(super) prefix: String,
    #[serde(default)]
    pub(super) after: u64,
}

/// A new lease's time to live.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ttl {
    pub(super) seconds: u64,
}

/// A prefix as it can stand in an address.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
