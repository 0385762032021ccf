//! **Effect.** A cluster whose majority is lost for good goes on from the member of this node.

use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::change;
use mesh_core::kv::TxnOutcome;
use mesh_core::model::Role;
use tokio::time::{Instant, sleep};

use super::{Cluster, ClusterError, gateway};
use crate::control::now;
use crate::disk;
use crate::store::Store;
use crate::store::etcd::{EtcdStore, Known};

/// How long it may take.
const READY: Duration = Duration::from_secs(60);

impl Cluster {
    /// This node's member goes on alone, with what it has; what only the lost ones had is gone. The others must not
    /// come back: they would be another cluster with the same records.
    pub async fn recover(&self) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        self.require(Role::Manager)?;
        let (voters, answering) = self.seen().votes();
        if voters > 0 && answering >= mesh_core::members::majority(voters) {
            return Err(ClusterError::Conflict(format!(
                "{answering} of {voters} managers answer, so nothing is lost: there is nothing to recover from"
            )));
        }
        Ok(self.go_on_alone().await?)
    }

    async fn go_on_alone(&self) -> anyhow::Result<()> {
        let Some(file) = &self.0.file else { bail!("this node belongs to no cluster") };
        let own = self.own();
        let Some(mut spec) = own.spec()? else { bail!("this node has no member of etcd") };
        spec.alone = Some(crate::control::random().iter().map(|byte| format!("{byte:02x}")).collect());
        disk::write(&own.file("member.json"), &spec)?;
        own.ensure().await?;

        // It may be behind what this node has seen: that is what the new generation says.
        let known = Known { cluster: Some(file.cluster.clone()), ..Known::default() };
        let deadline = Instant::now() + READY;
        let store = loop {
            sleep(Duration::from_millis(200)).await;
            // A connection to the former process would know the former members.
            let store = EtcdStore::new(own.options(true, &[], known.clone())?);
            match store.members().await {
                Ok(members) if members.len() == 1 => break store,
                _ if Instant::now() >= deadline => bail!("etcd does not go on alone; {}", own.last_words()),
                _ => {}
            }
        };
        let listing = store.list("").await.context("the member does not tell what it has")?;
        let world = self.0.control.world();
        let txn = change::go_on_alone(&listing.kvs, &world, &self.0.node, now());
        match store.txn(txn).await? {
            TxnOutcome::Committed { .. } => {}
            other => bail!("etcd does not take changes: {other:?}"),
        }
        self.become_one(Role::Manager, &file.cluster, vec![gateway(self.0.address)])
    }
}
