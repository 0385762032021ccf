//! **Effect.** What a manager does all the time: looks at the members, and takes the next step towards those that are
//! wanted. What the step is, is `mesh_core::members`' decision.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::join_all;
use mesh_core::etcd::{MemberSpec, PEER_PORT, url};
use mesh_core::kv::{Txn, TxnOutcome};
use mesh_core::members::{self, Member, Step};
use mesh_core::model::{NodeId, Role, Snapshot};
use mesh_core::records;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval};

use super::own::endpoints;
use super::{Cluster, MemberSeen, Seen, gateway, managers, snapshots};
use crate::store::Store;
use crate::store::etcd::{AdminError, Endpoint, EtcdStore};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// How much more rarely one acts whose member is not the leader: the leader's agent may be away.
const RARELY: u32 = 5;

/// What a node that becomes a manager gets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Issued {
    /// Its certificate.
    pub(super) certificate: String,
    /// Whom to trust.
    pub(super) authority: String,
}

/// Runs for ever.
pub(super) async fn run(cluster: &Cluster, etcd: &Arc<EtcdStore>) {
    let mut timer = interval(LOOK);
    let mut duty = Duty { cluster, etcd, refusals: 0, next: Instant::now(), rounds: 0, known: Vec::new() };
    if let Err(error) = duty.take_quota() {
        tracing::warn!("etcd keeps its former quota: {error:#}");
    }
    loop {
        timer.tick().await;
        duty.rounds = duty.rounds.wrapping_add(1);
        if let Err(error) = duty.round().await {
            tracing::warn!("as a manager: {error:#}");
        }
    }
}

struct Duty<'a> {
    cluster: &'a Cluster,
    etcd: &'a Arc<EtcdStore>,
    /// How often in a row etcd said no.
    refusals: u32,
    /// Not before.
    next: Instant,
    rounds: u32,
    /// The other managers' addresses.
    known: Vec<IpAddr>,
}

impl Duty<'_> {
    /// What is configured may be another quota than the member has: then it is started anew with it.
    fn take_quota(&self) -> anyhow::Result<()> {
        let (own, quota) = (self.cluster.own(), self.cluster.quota());
        match own.spec()? {
            Some(spec) if spec.quota != quota => own.keep(&MemberSpec { quota, ..spec }),
            _ => Ok(()),
        }
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let inner = &self.cluster.0;
        let own = self.cluster.own();
        if self.cluster.trust(&own).renew(inner.node.as_str(), inner.address)? {
            tracing::info!("this node's member of etcd has its next certificate");
        }
        own.ensure().await?;
        // Older than the look at the members: who says that it is well again was so before.
        let before = inner.control.world();
        let mut seen = match look(self.etcd, &inner.node).await {
            Ok(seen) => seen,
            Err(error) => {
                // Who is a member is known still; that none of them takes changes, too.
                inner.seen.send_modify(|seen| seen.waits = Some(error.to_string()));
                self.look_again().await;
                return Ok(());
            }
        };
        // Decided by the records as they are, and not as they were kept.
        let connected = inner.control.status().store.connected;
        let world = inner.control.world();
        if connected {
            self.follow(&seen)?;
            if self.steps_down(&world, &seen).await? {
                return Ok(());
            }
            self.sign(&world).await?;
            self.cluster.follow_rotation(self.etcd, &world).await?;
            let step = members::next(&decidable(&world, &seen));
            let is_own = |member: &&MemberSeen| member.node.as_ref() == Some(&inner.node);
            let answers =
                |member: &MemberSeen| member.health.as_ref().is_some_and(|health| health.leader != 0);
            let others_well =
                step == Step::Done && seen.members.iter().filter(|member| !is_own(member)).all(answers);
            let well = seen.members.iter().find(is_own).is_some_and(answers);
            let followed = self.cluster.follow_member_rotation(self.etcd, &before, others_well, well).await;
            if let Err(error) = followed {
                tracing::warn!("on the way to another authority of etcd's members: {error:#}");
            }
            if let Step::Wait { why } = &step {
                seen.waits = Some(why.clone());
            }
            inner.seen.send_replace(seen.clone());
            self.act(step, &seen).await;
            snapshots::keep(&self.cluster.own().file("snapshots"), self.etcd.as_ref()).await?;
        } else {
            inner.seen.send_replace(seen);
        }
        Ok(())
    }

    /// Without a majority the list of members cannot be had; those that were members are asked all the same.
    async fn look_again(&self) {
        let before = self.cluster.seen().members;
        let asked = before.into_iter().map(|member| async move {
            let health = match endpoint(&member, &self.cluster.0.node) {
                Some(endpoint) => self.etcd.health_of(&endpoint).await,
                None => None,
            };
            MemberSeen { health, ..member }
        });
        let members = join_all(asked).await;
        self.cluster.0.seen.send_modify(|seen| seen.members = members);
    }

    /// Takes up where the members are.
    fn follow(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let inner = &self.cluster.0;
        let voters = seen.members.iter().filter(|member| !member.learner);
        let is_other = |address: &IpAddr| *address != inner.address;
        let mut others: Vec<_> = voters.filter_map(|member| member.address).filter(is_other).collect();
        others.sort();
        if others == self.known {
            return Ok(());
        }
        self.etcd.set_endpoints(endpoints(true, &others)?);
        let all = [inner.address].into_iter().chain(others.iter().copied()).map(gateway);
        if self.cluster.moved(all.collect())? {
            self.known = others;
        }
        Ok(())
    }

    /// A manager that is to be none any more, and is no member, becomes a worker.
    async fn steps_down(&self, world: &Snapshot, seen: &Seen) -> anyhow::Result<bool> {
        let inner = &self.cluster.0;
        let is_member = seen.members.iter().any(|member| member.node.as_ref() == Some(&inner.node));
        if is_member || world.is_manager(&inner.node) || world.manager_ids().next().is_none() {
            return Ok(false);
        }
        tracing::info!("this node is no longer a manager");
        let others = managers(world).into_values().map(gateway).collect();
        let Some(file) = &inner.file else { return Ok(false) };
        self.cluster.become_one(Role::Worker, &file.cluster, others)?;
        self.cluster.own().remove().await?;
        Ok(true)
    }

    /// Signs what nodes ask for that are to become managers.
    async fn sign(&self, world: &Snapshot) -> anyhow::Result<()> {
        for node in world.managers() {
            let (asked, given) = (records::signing_request(&node.id), records::certificate(&node.id));
            let (asked_at, given_at) = (world.rev_of(&asked), world.rev_of(&given));
            if asked_at <= given_at {
                continue;
            }
            let listing = self.etcd.list(&asked).await?;
            let Some(request) = listing.kvs.iter().find(|kv| *kv.key == *asked) else { continue };
            let own = self.cluster.own();
            let trust = self.cluster.trust(&own);
            let certificate = trust.sign(&request.value, node.id.as_str(), node.address);
            let certificate = certificate.with_context(|| format!("the request of {}", node.name))?;
            let issued = Issued { certificate, authority: trust.authority()? };
            let mut txn = Txn::default();
            txn.unchanged(asked, request.modified);
            txn.unchanged(&given, given_at);
            txn.put(given, records::to_json(&issued));
            // Another manager may have been sooner.
            if let TxnOutcome::Committed { .. } = self.etcd.txn(txn).await? {
                tracing::info!(node = %node.name, "signed the certificate of a new manager");
            }
        }
        Ok(())
    }

    async fn act(&mut self, step: Step, seen: &Seen) {
        let own = seen.members.iter().find(|member| member.node.as_ref() == Some(&self.cluster.0.node));
        let leads = own.is_some_and(|own| seen.leader() == Some(own.id));
        if Instant::now() < self.next || !(leads || self.rounds.is_multiple_of(RARELY)) {
            return;
        }
        // Whoever goes on alone is not to be given the lost ones again before the records say that they are none.
        let Ok(_busy) = self.cluster.0.busy.try_lock() else { return };
        tracing::debug!(?step, "the next step");
        let done = match step.clone() {
            Step::Add { peer, .. } => self.etcd.add_learner(peer).await,
            Step::Promote { id } => self.etcd.promote(id).await,
            Step::Remove { id } => self.etcd.remove_member(id).await,
            Step::Wait { .. } | Step::Done => return,
        };
        match done {
            Ok(()) => {
                tracing::info!(?step, "changed the members of etcd");
                self.refusals = 0;
            }
            Err(AdminError::Refused(why)) => {
                if members::is_passing(&why) {
                    tracing::debug!(?step, %why, "etcd does not take it yet");
                } else {
                    tracing::warn!(?step, %why, "etcd does not change its members");
                }
                self.next = Instant::now() + members::pause(self.refusals);
                self.refusals += 1;
            }
            Err(AdminError::Store(error)) => {
                tracing::warn!(?step, %error, "cannot change the members of etcd")
            }
        }
    }
}

/// Where a member is asked; the own one on loopback.
fn endpoint(member: &MemberSeen, own: &NodeId) -> Option<Endpoint> {
    if member.node.as_ref() == Some(own) {
        return endpoints(true, &[]).ok()?.pop();
    }
    endpoints(false, &[member.address?]).ok()?.pop()
}

/// Who is a member, and how each fares.
async fn look(etcd: &EtcdStore, own: &NodeId) -> Result<Seen, crate::store::StoreError> {
    let listed = etcd.members().await?;
    let members = listed.into_iter().map(|(id, name, peer, learner)| async move {
        let address = peer.parse::<Endpoint>().ok().and_then(|peer| peer.address());
        let node = (!name.is_empty()).then(|| NodeId::new(name));
        let mut member = MemberSeen { id, node, address, learner, health: None };
        if let Some(endpoint) = endpoint(&member, own) {
            member.health = etcd.health_of(&endpoint).await;
        }
        member
    });
    Ok(Seen { members: join_all(members).await, waits: None })
}

/// What the decision needs of it.
fn decidable(world: &Snapshot, seen: &Seen) -> members::Seen {
    let members = seen.members.iter().map(|member| Member {
        id: member.id,
        node: member.node.clone(),
        peer: member.address.map(|address| url(address, PEER_PORT)).unwrap_or_default(),
        learner: member.learner,
        answers: member.health.is_some(),
    });
    let wanted: BTreeMap<_, _> = world
        .manager_ids()
        .map(|id| {
            // It can be reached by others when it has what to prove itself with.
            let certified = world.rev_of(&records::certificate(id)).0 > 0;
            let node = world.nodes.get(id).filter(|_| certified);
            (id.clone(), node.map(|node| url(node.address, PEER_PORT)))
        })
        .collect();
    members::Seen { members: members.collect(), wanted }
}
