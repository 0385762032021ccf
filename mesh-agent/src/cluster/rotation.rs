//! **Effect.** Another authority takes the place of the mesh's: one manager makes it, all of them take it over.
//!
//! Its key is among the secrets of etcd under its name before the records say that it counts, so whoever crashes in
//! between leaves nothing half done. Nodes follow by their next certificate (`pki::renewal`).

use std::collections::BTreeMap;
use std::sync::PoisonError;

use anyhow::Context;
use mesh_core::change;
use mesh_core::kv::{Rev, TxnOutcome};
use mesh_core::model::{Role, Snapshot};
use mesh_core::records;
use serde::{Deserialize, Serialize};

use super::{Cluster, ClusterError, Way};
use crate::control::{ControlError, now};
use crate::pki::Authority;
use crate::store::Store;
use crate::store::etcd::EtcdStore;

/// An authority as managers hand it on.
#[derive(Serialize, Deserialize)]
struct Secret {
    roots: String,
    key: String,
}

const SECRETS: &str = "authority/";

fn name_of(authority: &str) -> String {
    format!("{SECRETS}{authority}")
}

impl Cluster {
    /// Begins to replace the authority; nothing, if that is going on.
    pub async fn rotate(&self) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        self.require(Role::Manager)?;
        let Way::Manager(etcd) = &self.0.way else { return Ok(()) };
        if self.0.control.world().rotation.as_ref().is_some_and(|rotation| !rotation.settled) {
            return Ok(());
        }
        let authority = self.files().authority().map_err(anyhow::Error::from)?;
        let authority =
            authority.context("this manager has not got the authority's key yet; try again soon")?;
        let former = authority.name().map_err(anyhow::Error::from)?;
        let next = authority.rotate(now()).map_err(anyhow::Error::from)?;
        let name = next.name().map_err(anyhow::Error::from)?;
        let secret = Secret { roots: next.roots_pem(), key: next.key_pem() };
        let secret = records::to_json(&secret);
        etcd.put_secret(&name_of(&name), secret.as_bytes()).await.map_err(anyhow::Error::from)?;
        match self.0.control.change(|world, _| change::begin_rotation(world, &former, &name)).await {
            Ok(_) => {
                tracing::info!(authority = name, "the authority is being replaced");
                Ok(())
            }
            Err(ControlError::Refused(refusal)) => Err(ClusterError::Conflict(refusal.to_string())),
            Err(error) => Err(anyhow::Error::from(error).into()),
        }
    }

    /// Whom this node trusts (PEM).
    pub fn roots(&self) -> Result<String, ClusterError> {
        Ok(self.files().read().map_err(anyhow::Error::from)?.roots)
    }

    /// Has this manager sign by the authority that the records name, and trust the former one for as long as they say.
    pub(super) async fn follow_rotation(&self, etcd: &EtcdStore, world: &Snapshot) -> anyhow::Result<()> {
        let Some(rotation) = &world.rotation else { return Ok(()) };
        let files = self.files();
        let Some(present) = files.authority()? else { return Ok(()) };
        let mut authority = if present.name()? == rotation.authority {
            Authority::from_pem(&present.roots_pem(), &present.key_pem())?
        } else {
            let secret = etcd.secret(&name_of(&rotation.authority)).await?;
            let secret = secret.context("the key of the next authority is not there")?;
            let Secret { roots, key } = serde_json::from_slice(&secret).context("the next authority")?;
            Authority::from_pem(&roots, &key)?
        };
        if rotation.settled {
            authority = authority.settle();
        }
        if (authority.roots_pem(), authority.key_pem()) != (present.roots_pem(), present.key_pem()) {
            files.take_authority(&authority)?;
            tracing::info!(
                authority = rotation.authority,
                settled = rotation.settled,
                "took over the authority"
            );
        }
        if rotation.settled {
            let settled = world.rev_of(records::ROTATION);
            return self.forget_secrets(etcd, SECRETS, &name_of(&rotation.authority), settled).await;
        }
        let Some(txn) = change::settle_rotation(world) else { return Ok(()) };
        if let TxnOutcome::Committed { .. } = etcd.txn(txn).await? {
            tracing::info!(authority = rotation.authority, "the former authority is trusted no longer");
        }
        Ok(())
    }

    /// Removes the secrets of authorities that are none any more. Once for each replacement: nobody makes such.
    pub(super) async fn forget_secrets(
        &self,
        etcd: &EtcdStore,
        kind: &'static str,
        present: &str,
        settled: Rev,
    ) -> anyhow::Result<()> {
        let known = |forgotten: &BTreeMap<&str, Rev>| forgotten.get(kind) == Some(&settled);
        if known(&self.0.forgotten.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        for (name, written) in change::spent(etcd.secrets(kind).await?, present, settled) {
            etcd.remove_secret(&name, written).await?;
            tracing::info!(name, "nobody needs this authority's key any more: it is removed");
        }
        self.0.forgotten.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, settled);
        Ok(())
    }
}
