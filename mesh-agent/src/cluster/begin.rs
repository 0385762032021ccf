//! **Effect.** A cluster begins on this node: with the records that it has, or with those of a backup.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::backup::Backup;
use mesh_core::change::{self, Fresh, TokenTerms};
use mesh_core::etcd::{MemberSpec, PEER_PORT, url};
use mesh_core::kv::{Op, TxnOutcome};
use mesh_core::model::{Role, Snapshot};
use mesh_core::token::JoinToken;
use tokio::time::{Instant, sleep};

use super::own::Own;
use super::{Cluster, ClusterError, Way, binary, gateway, snapshots};
use crate::control::{ControlError, now, random};
use crate::pki::create_ca;
use crate::store::Store;
use crate::store::etcd::{EtcdOptions, EtcdStore, Known};
use crate::store::gate::Gate;

/// How long etcd may take to answer for the first time.
const READY: Duration = Duration::from_secs(30);
/// What managers alone may read: the authority's key.
pub(super) const AUTHORITY: &str = "etcd-ca.key";

impl Cluster {
    /// This node becomes the first manager of a cluster, with all records that it has.
    pub async fn init(&self) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        let gate = self.alone("init")?;
        gate.shut().await;
        let begun = async {
            let listing = gate.list("").await.context("cannot read the records of this node")?;
            self.begin(&Backup::of(listing), 0).await?;
            self.set_aside(false)
        };
        match begun.await {
            Ok(()) => Ok(()),
            Err(error) => {
                gate.open().await;
                Err(error.into())
            }
        }
    }

    /// The same with the records of a backup instead of its own, of which there may be none.
    pub async fn restore(&self, text: &str) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        let gate = self.alone("restore")?;
        let backup = Backup::parse(text)
            .map_err(|why| ClusterError::Invalid(format!("this backup cannot be used: {why}")))?;
        let status = gate.status().await.map_err(anyhow::Error::from)?;
        if status.cluster != backup.cluster {
            self.refuse_records("restoring another mesh's")?;
        }
        gate.shut().await;
        let seen = mesh_core::records::generation(
            &gate.list(mesh_core::records::GENERATION).await.map_err(anyhow::Error::from)?.kvs,
        );
        let begun = async {
            self.begin(&backup.without_others(&self.0.node), seen).await?;
            self.set_aside(true)
        };
        match begun.await {
            Ok(()) => Ok(()),
            Err(error) => {
                gate.open().await;
                Err(error.into())
            }
        }
    }

    /// The gate of a node that belongs to no cluster.
    pub(super) fn alone(&self, verb: &str) -> Result<&Gate, ClusterError> {
        match &self.0.way {
            Way::Alone(Some(gate)) => Ok(gate),
            Way::Alone(None) => Err(ClusterError::Conflict(format!(
                "the configuration of this node says where its records are (store.mode): 'mesh cluster {verb}' is for \
                 nodes with store.mode = \"local\""
            ))),
            Way::Manager(_) | Way::Worker(_) => Err(ClusterError::Conflict(
                "This node is already part of a cluster. Use \"mesh cluster leave\" to leave this cluster first."
                    .to_owned(),
            )),
        }
    }

    /// Refuses what would leave records of this node behind.
    pub(super) fn refuse_records(&self, what: &str) -> Result<(), ClusterError> {
        let world = self.0.control.world();
        let (networks, services, tasks) = (world.networks.len(), world.services.len(), world.tasks.len());
        if networks + services + tasks == 0 {
            return Ok(());
        }
        Err(ClusterError::Conflict(format!(
            "this node has records of its own ({networks} networks, {services} services, {tasks} tasks), and {what} \
             would leave them behind: remove them first"
        )))
    }

    /// A new token for other nodes to join with.
    pub async fn token(&self, terms: TokenTerms) -> Result<JoinToken, ClusterError> {
        self.require(Role::Manager)?;
        let authority = self.files().authority().map_err(anyhow::Error::from)?;
        let authority =
            authority.context("this manager has not got the authority's key yet; try again soon")?;
        let pin = authority.pin();
        let made = self.0.control.change(|world, fresh| change::add_token(world, pin, terms, fresh)).await;
        match made {
            Ok(done) => Ok(JoinToken { at: Some(gateway(self.0.address).to_string()), ..done.result }),
            Err(ControlError::Refused(refusal)) => Err(ClusterError::Invalid(refusal.to_string())),
            Err(error) => Err(anyhow::Error::from(error).into()),
        }
    }

    /// All records, to be restored from.
    pub async fn backup(&self) -> Result<String, ClusterError> {
        Ok(match &self.0.way {
            Way::Manager(etcd) => snapshots::export(etcd.as_ref()).await?,
            Way::Alone(Some(gate)) => snapshots::export(gate.as_ref()).await?,
            Way::Alone(None) | Way::Worker(_) => {
                self.require(Role::Manager)?;
                String::new()
            }
        })
    }

    /// Refuses what only a manager's agent does.
    pub fn require_manager(&self) -> Result<(), ClusterError> {
        self.require(Role::Manager)
    }

    /// Refuses what is not this node's to do.
    pub(super) fn require(&self, role: Role) -> Result<(), ClusterError> {
        match (self.role(), role) {
            (Some(found), wanted) if found == wanted => Ok(()),
            (Some(_), _) => Err(ClusterError::Conflict(
                "This node is not a cluster manager. Worker nodes can't be used to view or modify cluster state. \
                 Please run this command on a manager node or promote the current node to a manager."
                    .to_owned(),
            )),
            (None, _) => Err(ClusterError::Conflict(
                "This node is not a cluster manager. Use \"mesh cluster init\" or \"mesh cluster join\" to connect this \
                 node to a cluster and try again."
                    .to_owned(),
            )),
        }
    }

    /// Starts a member, fills it, and says that it counts. When anything fails nothing is left of it.
    async fn begin(&self, backup: &Backup, seen: u64) -> anyhow::Result<()> {
        let own = self.own();
        // What an attempt that was broken off left behind.
        own.remove().await?;
        let filled = self.fill(&own, backup, seen).await;
        if filled.is_err() {
            own.remove().await.context("and what was begun cannot be removed")?;
            self.files().remove().context("and what was begun cannot be removed")?;
        }
        filled
    }

    async fn fill(&self, own: &Own, backup: &Backup, seen: u64) -> anyhow::Result<()> {
        let Self(inner) = self;
        binary::find().await?;
        let trust = self.trust(own);
        trust.found()?;
        let certificate = trust.sign(&trust.request()?, inner.node.as_str(), inner.address)?;
        trust.accept(&certificate, &trust.authority()?)?;
        let authority = create_ca(&backup.cluster, now())?;
        let founded = authority.found(&inner.node, now(), inner.terms.certificates, &self.files())?;
        let fresh = Fresh { id: random(), now: now() };
        let manager = change::begin(&Snapshot::default(), &inner.node, founded.certificate, fresh).txn.ops;
        own.run(&first(inner.node.as_str(), inner.address, self.quota())).await?;

        let options = own.options(true, &[], Known::default())?;
        let store = ready(own, &options, &backup.cluster).await?;
        for txn in backup.fill(puts(manager), seen, now()) {
            match store.txn(txn).await? {
                TxnOutcome::Committed { .. } => {}
                other => bail!("etcd did not take the records: {other:?}"),
            }
        }
        store.put_secret(AUTHORITY, trust.key()?.as_bytes()).await?;
        self.become_one(Role::Manager, &backup.cluster, vec![gateway(inner.address)])
    }
}

/// What is written; there is nothing to remove where there was nothing.
fn puts(ops: Vec<Op>) -> Vec<Op> {
    ops.into_iter().filter(|op| matches!(op, Op::Put { .. })).collect()
}

/// The first member of a cluster.
fn first(node: &str, address: IpAddr, quota: u64) -> MemberSpec {
    MemberSpec {
        node: node.to_owned(),
        address,
        cluster: vec![(node.to_owned(), url(address, PEER_PORT))],
        joins: false,
        token: random().iter().map(|byte| format!("{byte:02x}")).collect(),
        quota,
        alone: None,
    }
}

/// Waits until etcd answers, and writes down which mesh it is.
async fn ready(own: &Own, options: &EtcdOptions, mesh: &str) -> anyhow::Result<EtcdStore> {
    let deadline = Instant::now() + READY;
    loop {
        match EtcdStore::begin(options.clone(), mesh).await {
            Ok(store) => return Ok(store),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("etcd does not answer; {}", own.last_words()));
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
