//! **Fact.** `cluster.json`: that this node belongs to a cluster, as what, and where its managers are.

use std::net::SocketAddr;
use std::path::Path;

use mesh_core::model::Role;
use serde::{Deserialize, Serialize};

use crate::disk;

/// That a node belongs to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Which mesh.
    pub cluster: String,
    /// As what.
    pub role: Role,
    /// The gateways of its managers, this one's too.
    pub managers: Vec<SocketAddr>,
}

impl ClusterFile {
    /// What is written in a state directory.
    pub fn load(state_dir: &Path) -> anyhow::Result<Option<Self>> {
        disk::read(&state_dir.join("cluster.json"))
    }

    /// Writes it down: from the next start on it counts.
    pub(super) fn save(&self, state_dir: &Path) -> anyhow::Result<()> {
        disk::write(&state_dir.join("cluster.json"), self)
    }
}
