//! **Effect.** Another authority takes the place of that of etcd's members. The steps are `mesh_core::change::trust`'s.

use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::change::{self, Change, TrustDuty};
use mesh_core::kv::{Txn, TxnOutcome};
use mesh_core::model::{Role, Snapshot, TrustStep};
use mesh_core::records::{self, MEMBER_ROTATION};
use tokio::time::{Instant, sleep};

use super::begin::AUTHORITY;
use super::own::endpoints;
use super::trust::Authority;
use super::{Cluster, ClusterError, Way};
use crate::control::ControlError;
use crate::store::Store;
use crate::store::etcd::EtcdStore;

/// How long a member may take to be well after it was started anew.
const WELL: Duration = Duration::from_secs(30);

const SECRETS: &str = "etcd-authority/";

fn name_of(authority: &str) -> String {
    format!("{SECRETS}{authority}")
}

impl Cluster {
    /// Begins to replace the authority of etcd's members; nothing, if that is going on.
    pub async fn rotate_members(&self) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        self.require(Role::Manager)?;
        let Way::Manager(etcd) = &self.0.way else { return Ok(()) };
        let world = self.0.control.world();
        if change::members_rotate(&world) {
            return Ok(());
        }
        let seen = world.rev_of(MEMBER_ROTATION);
        let next = Authority::make()?;
        let secret = records::to_json(&next);
        etcd.put_secret(&name_of(&next.name), secret.as_bytes()).await.map_err(anyhow::Error::from)?;
        match self.0.control.change(|world, _| change::begin_member_rotation(world, seen, &next.name)).await {
            Ok(_) => {
                tracing::info!(authority = next.name, "the authority of etcd's members is being replaced");
                Ok(())
            }
            Err(ControlError::Refused(refusal)) => Err(ClusterError::Conflict(refusal.to_string())),
            Err(error) => Err(anyhow::Error::from(error).into()),
        }
    }

    /// Has this manager's member do what the replacement asks of it, if that is anything. `others_well`: the members are
    /// those that are wanted, and all but this one answer.
    pub(super) async fn follow_member_rotation(
        &self,
        etcd: &EtcdStore,
        world: &Snapshot,
        others_well: bool,
        well: bool,
    ) -> anyhow::Result<()> {
        let Some(rotation) = &world.member_rotation else { return Ok(()) };
        let (inner, own) = (&self.0, self.own());
        let trust = self.trust(&own);
        // Whoever was broken off between two files signs by none.
        let signs = trust.signs().unwrap_or_default();
        match change::trust_duty(world, &inner.node, &signs, others_well, well) {
            TrustDuty::Nothing if rotation.step == TrustStep::Settled => {
                let settled = world.rev_of(MEMBER_ROTATION);
                self.forget_secrets(etcd, SECRETS, &name_of(&rotation.authority), settled).await?;
            }
            TrustDuty::Nothing => {}
            TrustDuty::Write(txn) => drop(committed(etcd, txn).await?),
            TrustDuty::TakeOver => {
                let next = authority(etcd, &rotation.authority).await?;
                trust.take_over(&next, inner.node.as_str(), inner.address)?;
                // Who becomes a manager from now on gets it.
                etcd.put_secret(AUTHORITY, next.key.as_bytes()).await?;
                tracing::info!(
                    authority = next.name,
                    "this node's member of etcd is certified by the next authority"
                );
            }
            TrustDuty::StartAnew { still, both } => {
                // One verb at a time: others may end the member, too.
                let Ok(_busy) = inner.busy.try_lock() else { return Ok(()) };
                if !committed(etcd, still).await? {
                    return Ok(());
                }
                match both {
                    true => trust.trust_also(authority(etcd, &rotation.authority).await?.root())?,
                    false => trust.trust_own()?,
                }
                own.start_anew().await?;
                self.until_well(etcd).await?;
                tracing::info!(both, "this node's member of etcd trusts the next authority");
                let done = |world: &Snapshot| change::trust_done(world, &inner.node).unwrap_or_default();
                inner.control.change(|world, _| Ok(Change { txn: done(world), result: () })).await?;
            }
        }
        Ok(())
    }

    async fn until_well(&self, etcd: &EtcdStore) -> anyhow::Result<()> {
        let Some(own) = endpoints(true, &[])?.pop() else { return Ok(()) };
        let until = Instant::now() + WELL;
        while etcd.health_of(&own).await.is_none_or(|health| health.leader == 0) {
            if Instant::now() >= until {
                bail!("this node's member of etcd is not well after it was started anew");
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

async fn authority(etcd: &EtcdStore, name: &str) -> anyhow::Result<Authority> {
    let secret =
        etcd.secret(&name_of(name)).await?.context("the next authority of etcd's members is not there")?;
    serde_json::from_slice(&secret).context("the next authority of etcd's members makes no sense")
}

/// Whether it was; what was not is decided anew.
async fn committed(etcd: &EtcdStore, txn: Txn) -> anyhow::Result<bool> {
    Ok(matches!(etcd.txn(txn).await?, TxnOutcome::Committed { .. }))
}
