//! **Decision.** A node's copy of the world: how batches and listings change it, and when it refuses to.
//!
//! A copy only ever moves forward. A full listing that would make much of the world vanish is held back until
//! someone says that it is meant: an empty or wrong store must not empty the balance.
//!
//! Nor does a record that makes no sense: it is set aside, and the form that it had before stays in force, until it is
//! written anew. So is one that the agent would break by ([`Replica::bar`], `quarantine`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kv::{Batch, Event, KeyValue, LeaseId, Listing, Rev};
use crate::model::{NetworkId, SharedMap, Snapshot, Task, TaskId};
use crate::records::{self, HeldClaim, Record};

/// A resync may remove this share of services or tasks before it is held back…
const BUDGET_SHARE: f64 = 0.3;
/// …or this many, whichever is more.
const BUDGET_COUNT: usize = 5;

/// Why a batch or a listing was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It comes from another store than all before.
    #[error(
        "the store is '{found}', but this node belongs to '{expected}'; nothing was changed \
         (to move the node for good, stop its agent and remove its cache of the store)"
    )]
    WrongCluster {
        /// Ours.
        expected: String,
        /// Theirs.
        found: String,
    },
    /// The store is older than what was already seen.
    #[error(
        "the store's history went back from revision {seen} to {found}, as if an old backup had been restored; \
         nothing was changed (restart the agent with --accept-deletions if that is meant)"
    )]
    WentBack {
        /// The newest that was seen.
        seen: Rev,
        /// The store's.
        found: Rev,
    },
    /// Too much would vanish.
    #[error(
        "the store no longer has {missing} of {known} {what}; holding on to them \
         (restart the agent with --accept-deletions if that is meant)"
    )]
    TooManyDeletions {
        /// `services` or `tasks`.
        what: &'static str,
        /// How many would go.
        missing: usize,
        /// Of how many.
        known: usize,
    },
}

/// What is kept on disk, so that a node serves what it knew when it starts without a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Which store this is a copy of.
    pub cluster: String,
    /// The newest revision that changed more than signs of life.
    pub changed: Rev,
    /// The revision.
    pub rev: Rev,
    /// Everything but signs of life.
    pub kvs: Vec<KeyValue>,
    /// Records that are set aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aside: Vec<Aside>,
    /// The version of the agent that wrote it down. Another one may not break by what this one did.
    #[serde(default)]
    pub agent: String,
}

/// A record whose newest form is not in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Its key.
    pub key: Arc<str>,
    /// The form that is in force; none: none was known.
    pub former: Option<KeyValue>,
    /// Which form can be read and is not to be in force all the same, and why.
    pub barred: Option<(Rev, String)>,
}

/// Of this agent.
const AGENT: &str = env!("CARGO_PKG_VERSION");

/// A node's copy of the world.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    cluster: Option<String>,
    /// The newest form of each record, whether it is in force or not.
    texts: SharedMap<Arc<str>, Text>,
    /// What is in force of those that are set aside.
    former: BTreeMap<Arc<str>, KeyValue>,
    /// Which form of a record is not to be brought into force, and why.
    barred: BTreeMap<Arc<str>, (Rev, String)>,
    world: Snapshot,
}

/// A record as it was written; what a snapshot does not say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text {
    value: Arc<str>,
    created: Rev,
    /// 0: none.
    lease: u64,
}

impl Text {
    fn of(kv: &KeyValue) -> Self {
        let lease = kv.lease.map_or(0, |LeaseId(lease)| lease);
        Self { value: Arc::clone(&kv.value), created: kv.created, lease }
    }
}

impl Replica {
    /// Begins with what was kept on disk.
    pub fn from_cache(cache: Cache) -> Self {
        let mut replica = Self { cluster: Some(cache.cluster), ..Self::default() };
        for Aside { key, former, barred } in cache.aside {
            former.into_iter().for_each(|former| replica.put(former));
            replica.barred.extend(barred.filter(|_| cache.agent == AGENT).map(|barred| (key, barred)));
        }
        for kv in cache.kvs {
            replica.put(kv);
        }
        replica.world.rev = cache.rev;
        replica.world.changed = cache.changed;
        replica
    }

    /// What to keep on disk.
    pub fn to_cache(&self) -> Option<Cache> {
        Some(Cache {
            cluster: self.cluster.clone()?,
            rev: self.world.rev,
            changed: self.world.changed,
            kvs: self.kvs().filter(|kv| records::matters(&kv.key)).collect(),
            aside: self.aside(),
            agent: AGENT.to_owned(),
        })
    }

    /// The newest form of all records.
    fn kvs(&self) -> impl Iterator<Item = KeyValue> {
        self.texts.iter().map(|(key, text)| self.record(key, text))
    }

    /// The newest form of one.
    fn newest(&self, key: &str) -> Option<KeyValue> {
        self.texts.get_key_value(key).map(|(key, text)| self.record(key, text))
    }

    fn record(&self, key: &Arc<str>, text: &Text) -> KeyValue {
        let Text { value, created, lease } = text.clone();
        let lease = (lease != 0).then_some(LeaseId(lease));
        KeyValue { key: Arc::clone(key), value, created, modified: self.world.rev_of(key), lease }
    }

    /// Whether it has just that.
    fn has(&self, kv: &KeyValue) -> bool {
        self.texts.get(&kv.key) == Some(&Text::of(kv)) && self.world.rev_of(&kv.key) == kv.modified
    }

    fn aside(&self) -> Vec<Aside> {
        let keys: BTreeSet<&Arc<str>> = self.former.keys().chain(self.barred.keys()).collect();
        let aside = |key: &Arc<str>| Aside {
            key: Arc::clone(key),
            former: self.former.get(key).cloned(),
            barred: self.barred.get(key).cloned(),
        };
        keys.into_iter().map(aside).collect()
    }

    /// This form of a record is not to be brought into force, now or when it comes, for the agent would break by it. `former`
    /// is what was in force before, where the copy does not have that any more.
    pub fn bar(&mut self, key: &str, rev: Rev, why: &str, former: Option<KeyValue>) {
        self.barred.insert(key.into(), (rev, why.to_owned()));
        let Some(kv) = self.newest(key).filter(|kv| kv.modified == rev) else { return };
        let former = self.former.get(key).cloned().or(former);
        self.delete(key);
        former.into_iter().for_each(|former| self.put(former));
        self.put(kv);
    }

    /// Takes that back.
    pub fn admit(&mut self, key: &str) {
        self.barred.remove(key);
        self.newest(key).into_iter().for_each(|kv| self.put(kv));
    }

    /// The world as of now.
    pub fn world(&self) -> &Snapshot {
        &self.world
    }

    /// The store that this is a copy of.
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Which generation of the records this is a copy of.
    pub fn generation(&self) -> u64 {
        self.world.generation
    }

    /// Takes over one revision. Those already seen are passed over (etcd 3.4 can send one twice).
    pub fn apply(&mut self, batch: Batch) {
        if batch.rev <= self.world.rev {
            return;
        }
        if batch.events.iter().any(|event| records::matters(event.key())) {
            self.world.changed = batch.rev;
        }
        for event in batch.events {
            // Signs of life may have been listed apart, at a later revision than the rest; what is told again
            // on the way there is old news.
            if self.world.rev_of(event.key()) > batch.rev {
                continue;
            }
            match event {
                Event::Put(kv) => self.put(kv),
                Event::Delete(key) => self.delete(&key),
            }
        }
        self.world.rev = batch.rev;
    }

    /// What is wrong with a store that calls this its newest revision.
    pub fn doubt(&self, cluster: &str, rev: Rev) -> Result<(), Refused> {
        if let Some(expected) = self.cluster.as_deref().filter(|expected| *expected != cluster) {
            return Err(Refused::WrongCluster { expected: expected.to_owned(), found: cluster.to_owned() });
        }
        if rev < self.world.rev {
            return Err(Refused::WentBack { seen: self.world.rev, found: rev });
        }
        Ok(())
    }

    /// Takes over a listing of the signs of life alone, which a cache does not hold. The revision stays, so
    /// that a watch still brings everything else from there.
    pub fn refresh_live(&mut self, listing: Listing) -> Result<(), Refused> {
        self.refresh(listing, |key| !records::matters(key))
    }

    /// The same of tokens, which a copy lacks that was made while the node was a worker.
    pub fn refresh_tokens(&mut self, listing: Listing) -> Result<(), Refused> {
        self.refresh(listing, |key| key.starts_with(records::TOKENS))
    }

    fn refresh(&mut self, listing: Listing, is_meant: impl Fn(&str) -> bool) -> Result<(), Refused> {
        self.doubt(&listing.cluster, listing.rev)?;
        let gone: Vec<_> = self.texts.keys().filter(|key| is_meant(key)).cloned().collect();
        for key in gone {
            self.delete(&key);
        }
        for kv in listing.kvs.into_iter().filter(|kv| is_meant(&kv.key)) {
            self.put(kv);
        }
        Ok(())
    }

    /// Takes over a full listing: mark and sweep, within the deletion budget unless `accept_deletions`. Those of a
    /// later generation were moved, restored or saved on purpose: they are what they are.
    pub fn resync(&mut self, listing: Listing, accept_deletions: bool) -> Result<(), Refused> {
        let renewed = records::generation(&listing.kvs) > self.generation();
        let accept_deletions = accept_deletions || renewed;
        let doubt = self.doubt(&listing.cluster, listing.rev);
        let went_back = matches!(doubt, Err(Refused::WentBack { .. }));
        if !(went_back && accept_deletions) {
            doubt?;
        }
        let listed: BTreeMap<_, _> = listing.kvs.into_iter().map(|kv| (Arc::clone(&kv.key), kv)).collect();
        if !accept_deletions {
            self.within_budget("services", "svc/", &listed)?;
            self.within_budget("tasks", "task/", &listed)?;
        }
        if went_back || renewed {
            // Revisions are others from now on.
            self.barred.clear();
        }
        let gone: Vec<_> = self.texts.keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
        let mut changed = went_back || renewed || gone.iter().any(|key| records::matters(key));
        for key in gone {
            self.delete(&key);
        }
        for (key, kv) in listed {
            if !self.has(&kv) {
                changed |= records::matters(&key);
                self.put(kv);
            }
        }
        self.cluster = Some(listing.cluster);
        self.world.rev = listing.rev;
        if changed {
            self.world.changed = listing.rev;
        }
        Ok(())
    }

    fn within_budget(
        &self,
        what: &'static str,
        prefix: &str,
        listed: &BTreeMap<Arc<str>, KeyValue>,
    ) -> Result<(), Refused> {
        let known: Vec<_> = self.texts.keys().filter(|key| key.starts_with(prefix)).collect();
        let missing = known.iter().filter(|key| !listed.contains_key(**key)).count();
        if missing > BUDGET_COUNT && missing as f64 > known.len() as f64 * BUDGET_SHARE {
            return Err(Refused::TooManyDeletions { what, missing, known: known.len() });
        }
        Ok(())
    }

    fn put(&mut self, kv: KeyValue) {
        let (key, rev) = (Arc::clone(&kv.key), kv.modified);
        match self.read(&kv) {
            Ok(record) => {
                // A record that turns into another kind under the same key leaves nothing of the old one.
                self.delete(&key);
                self.enforce(record, &kv);
                if self.barred.get(&key).is_some_and(|(barred, _)| *barred < rev) {
                    self.barred.remove(&key);
                }
            }
            Err(why) => self.set_aside(&kv, why),
        }
        self.world.revs.insert(Arc::clone(&key), rev);
        if *key == *records::GENERATION {
            self.world.generation = records::generation([&kv]);
        }
        self.texts.insert(key, Text::of(&kv));
    }

    /// What a record says; `Err` says in words why that is not to be brought into force.
    fn read(&self, kv: &KeyValue) -> Result<Record, String> {
        match self.barred.get(&kv.key) {
            Some((rev, why)) if *rev == kv.modified => Err(why.clone()),
            _ => records::decode(&kv.key, &kv.value),
        }
    }

    /// Leaves in force what is, if anything. Of what says that a node lives nothing old counts.
    fn set_aside(&mut self, kv: &KeyValue, why: String) {
        let key = &kv.key;
        if !records::matters(key) {
            self.delete(key);
        } else if !self.world.poison.contains_key(&**key)
            && let Some(former) = self.newest(key)
        {
            self.former.insert(Arc::clone(key), former);
        }
        // Whoever writes it next does so on the condition that it is as it is now.
        if let Some(held) = self.world.claims.get_mut(&**key) {
            held.modified = kv.modified;
        }
        self.world.poison.insert(key.to_string(), why);
    }

    fn enforce(&mut self, record: Record, kv: &KeyValue) {
        let world = &mut self.world;
        match record {
            Record::Network(network) => {
                world.networks.insert(network.id.clone(), Arc::from(network));
            }
            Record::Service(service) => {
                world.services.insert(service.id.clone(), Arc::from(service));
            }
            Record::Task(mut task) => {
                share_ids(world, &mut task);
                world.tasks.insert(task.id.clone(), Arc::from(task));
            }
            Record::Node(node) => {
                world.nodes.insert(node.id.clone(), Arc::from(node));
            }
            Record::NodeSpec(id, spec) => {
                world.specs.insert(id, spec);
            }
            Record::TaskSpec(id, spec) => {
                world.task_specs.insert(id, spec);
            }
            Record::Live(id, live) => {
                world.live.insert(id, live);
            }
            Record::Down(id, down) => {
                world.downs.insert(id, down);
            }
            Record::Block(network, block, node) => {
                world.blocks.insert((network, block), node);
            }
            Record::Claim(claim) => {
                world.claims.insert(Arc::clone(&kv.key), HeldClaim { claim, modified: kv.modified });
            }
            Record::Tokens(role, tokens) => {
                world.tokens.insert(role, tokens);
            }
            Record::Identity(id, identity) => {
                world.identities.insert(id, identity);
            }
            Record::Denied(serial, denied) => {
                world.denied.insert(serial, denied);
            }
            Record::Rotation(rotation) => world.rotation = Some(rotation),
            Record::Verification(asked) => world.verification = Some(asked),
            Record::MemberRotation(rotation) => world.member_rotation = Some(rotation),
            Record::Stop(task) => {
                world.stops.insert(task, kv.modified);
            }
            Record::Other => {}
        }
    }

    fn delete(&mut self, key: &str) {
        let Some(newest) = self.texts.remove(key) else { return };
        let value = self.former.remove(key).map_or(newest.value, |former| former.value);
        let world = &mut self.world;
        world.revs.remove(key);
        world.poison.remove(key);
        if key == records::GENERATION {
            world.generation = 0;
        }
        match records::decode(key, &value) {
            Ok(Record::Network(network)) => drop(world.networks.remove(&network.id)),
            Ok(Record::Service(service)) => drop(world.services.remove(&service.id)),
            Ok(Record::Task(task)) => drop(world.tasks.remove(&task.id)),
            Ok(Record::Node(node)) => drop(world.nodes.remove(&node.id)),
            Ok(Record::NodeSpec(id, _)) => drop(world.specs.remove(&id)),
            Ok(Record::TaskSpec(id, _)) => drop(world.task_specs.remove(&id)),
            Ok(Record::Live(id, _)) => drop(world.live.remove(&id)),
            Ok(Record::Down(id, _)) => drop(world.downs.remove(&id)),
            Ok(Record::Block(network, block, _)) => drop(world.blocks.remove(&(network, block))),
            Ok(Record::Claim(_)) => drop(world.claims.remove(key)),
            Ok(Record::Tokens(role, _)) => drop(world.tokens.remove(&role)),
            Ok(Record::Identity(id, _)) => drop(world.identities.remove(&id)),
            Ok(Record::Denied(serial, _)) => drop(world.denied.remove(&serial)),
            Ok(Record::Rotation(_)) => world.rotation = None,
            Ok(Record::Verification(_)) => world.verification = None,
            Ok(Record::MemberRotation(_)) => world.member_rotation = None,
            Ok(Record::Stop(task)) => drop(world.stops.remove(&task)),
            Ok(Record::Other) | Err(_) => {}
        }
    }
}

/// Ids that many tasks have are one text in all of them, and a task's own is that of its claim.
fn share_ids(world: &Snapshot, task: &mut Task) {
    let claim = task.service.as_ref().map(|service| records::slot_claim(service, task.slot));
    let owner = claim.and_then(|claim| Some(&world.claims.get(&*claim)?.claim.owner));
    if let Some(owner) = owner.filter(|owner| ***owner == *task.id.as_str()) {
        task.id = TaskId::new(Arc::clone(owner));
    }
    if let Some((known, _)) = world.nodes.get_key_value(&task.node) {
        task.node = known.clone();
    }
    if let Some((known, _)) = task.service.as_ref().and_then(|id| world.services.get_key_value(id)) {
        task.service = Some(known.clone());
    }
    let known =
        |id: NetworkId| world.networks.get_key_value(&id).map_or(id.clone(), |(known, _)| known.clone());
    let addresses = std::mem::take(&mut task.addresses);
    task.addresses = addresses.into_iter().map(|(id, address)| (known(id), address)).collect();
}

#[cfg(test)]
mod tests;
