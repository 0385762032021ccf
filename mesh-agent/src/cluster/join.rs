//! **Effect.** This node joins a cluster, as a worker.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use super::{Cluster, ClusterError, Role, token};
use crate::store::gateway::{GatewayStore, Secret};
use crate::store::{Store, StoreError};

/// How long a manager may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

impl Cluster {
    /// Joins the cluster that a token is of. What this node knew of a mesh of its own goes out of the way.
    pub async fn join(&self, text: &str) -> Result<SocketAddr, ClusterError> {
        let _busy = self.0.busy.lock().await;
        self.alone("join")?;
        let (secret, address) = token::parse(text).map_err(ClusterError::Invalid)?;
        self.refuse_records("joining")?;
        let proof = Secret::new(secret.clone()).map_err(anyhow::Error::from)?;
        let gateway = GatewayStore::connect(address.to_string(), proof);
        let status = timeout(ANSWER, gateway.status()).await;
        let status = match status.with_context(|| format!("the manager at {address} does not answer"))? {
            Ok(status) => status,
            Err(StoreError::Denied { .. }) => {
                return Err(ClusterError::Invalid(format!(
                    "the manager at {address} does not know this join token: ask it for a new one ('mesh cluster token \
                     worker')"
                )));
            }
            Err(error) => return Err(anyhow::Error::from(error).into()),
        };
        token::accept(&self.0.state_dir, &secret)?;
        self.set_aside(true)?;
        self.become_one(Role::Worker, &status.cluster, vec![address])?;
        Ok(address)
    }
}
