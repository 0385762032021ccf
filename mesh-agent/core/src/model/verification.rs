//! **Fact.** Every node is asked to compare its kernel with what is planned for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What is asked of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Unlike any other's.
    pub id: String,
    /// Whether what differs is to be mended.
    pub repair: bool,
    /// When it was asked.
    pub since: Timestamp,
}

/// What a node found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Which question this answers.
    pub id: String,
    /// What was not as planned, by object: the first [`Self::MOST`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differences: BTreeMap<String, String>,
    /// How many there were.
    pub count: u64,
    /// How many are left after the repair that was asked for; else the same.
    pub left: u64,
}

impl Verified {
    /// How many differences are told in full: a sign of life has to stay short.
    pub const MOST: usize = 50;

    /// A node's answer.
    pub fn new(id: &str, mut differences: BTreeMap<String, String>, left: usize) -> Self {
        let count = differences.len() as u64;
        while differences.len() > Self::MOST {
            differences.pop_last();
        }
        Self { id: id.to_owned(), differences, count, left: left as u64 }
    }
}
