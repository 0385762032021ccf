//! **Effect.** This node joins a cluster, as what its token says.

use std::net::SocketAddr;

use anyhow::Context;
use mesh_core::model::Role;
use mesh_core::token::JoinToken;

use super::{Cluster, ClusterError};
use crate::disk;
use crate::pki::{JoinError, Joined, join};

impl Cluster {
    /// Joins the cluster that a token is of. What this node knew of a mesh of its own goes out of the way. It is a worker at
    /// first in any case: who is to be a manager becomes one when its member of etcd has caught up.
    pub async fn join(&self, text: &str) -> Result<Role, ClusterError> {
        let _busy = self.0.busy.lock().await;
        self.alone("join")?;
        let token: JoinToken = text.parse().map_err(|error| ClusterError::Invalid(format!("{error}")))?;
        self.refuse_records("joining")?;
        let joined = join(&token, &self.0.name, &self.files()).await;
        let Joined { cluster, node, role, managers } = joined.map_err(|error| match error {
            JoinError::Nowhere | JoinError::Stranger { .. } => ClusterError::Invalid(error.to_string()),
            other => anyhow::Error::from(other).into(),
        })?;
        let taken_over = || -> anyhow::Result<()> {
            let managers = managers.iter().map(|at| address(at)).collect::<anyhow::Result<Vec<_>>>()?;
            // A node's id follows from its key.
            disk::write_bytes(&self.0.state_dir.join("node-id"), format!("{node}\n").as_bytes())?;
            self.set_aside(true)?;
            self.become_one(Role::Worker, &cluster, managers)
        };
        if let Err(error) = taken_over() {
            self.files().remove().map_err(anyhow::Error::from)?;
            return Err(error.into());
        }
        Ok(role)
    }
}

/// An address, of a name too.
fn address(at: &str) -> anyhow::Result<SocketAddr> {
    use std::net::ToSocketAddrs;
    let found = at.to_socket_addrs().with_context(|| format!("'{at}' is no address"))?.next();
    found.with_context(|| format!("'{at}' has no address"))
}
