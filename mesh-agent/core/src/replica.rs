//! **Decision.** A node's copy of the world: how batches and listings change it, and when it refuses to.
//!
//! A copy only ever moves forward. A full listing that would make much of the world vanish is held back until
//! someone says that it is meant: an empty or wrong store must not empty the balance.

use std::collections::BTreeMap;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Which store this is a copy of.
    pub cluster: String,
    /// The newest revision that changed more than signs of life.
    pub changed: Rev,
    /// The revision.
    pub rev: Rev,
    /// Everything but signs of life.
    pub kvs: Vec<KeyValue>,
}

/// A node's copy of the world.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    cluster: Option<String>,
    /// Of the keys that the world knows revisions of.
    texts: SharedMap<Arc<str>, Text>,
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
        })
    }

    /// All records as they were written.
    fn kvs(&self) -> impl Iterator<Item = KeyValue> {
        self.texts.iter().map(|(key, text)| {
            let Text { value, created, lease } = text.clone();
            let lease = (lease != 0).then_some(LeaseId(lease));
            KeyValue { key: Arc::clone(key), value, created, modified: self.world.rev_of(key), lease }
        })
    }

    /// Whether it has just that.
    fn has(&self, kv: &KeyValue) -> bool {
        self.texts.get(&kv.key) == Some(&Text::of(kv)) && self.world.rev_of(&kv.key) == kv.modified
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
        self.doubt(&listing.cluster, listing.rev)?;
        let gone: Vec<_> = self.texts.keys().filter(|key| !records::matters(key)).cloned().collect();
        for key in gone {
            self.delete(&key);
        }
        for kv in listing.kvs.into_iter().filter(|kv| !records::matters(&kv.key)) {
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
        // A record that turns into another kind under the same key leaves nothing of the old one.
        self.delete(&kv.key);
        let world = &mut self.world;
        world.revs.insert(Arc::clone(&kv.key), kv.modified);
        match records::decode(&kv.key, &kv.value) {
            Ok(Record::Network(network)) => {
                world.networks.insert(network.id.clone(), Arc::from(network));
            }
            Ok(Record::Service(service)) => {
                world.services.insert(service.id.clone(), Arc::from(service));
            }
            Ok(Record::Task(mut task)) => {
                share_ids(world, &mut task);
                world.tasks.insert(task.id.clone(), Arc::from(task));
            }
            Ok(Record::Node(node)) => {
                world.nodes.insert(node.id.clone(), Arc::from(node));
            }
            Ok(Record::NodeSpec(id, spec)) => {
                world.specs.insert(id, spec);
            }
            Ok(Record::TaskSpec(id, spec)) => {
                world.task_specs.insert(id, spec);
            }
            Ok(Record::Live(id, live)) => {
                world.live.insert(id, live);
            }
            Ok(Record::Down(id, down)) => {
                world.downs.insert(id, down);
            }
            Ok(Record::Block(network, block, node)) => {
                world.blocks.insert((network, block), node);
            }
            Ok(Record::Claim(claim)) => {
                world.claims.insert(Arc::clone(&kv.key), HeldClaim { claim, modified: kv.modified });
            }
            Ok(Record::Tokens(role, tokens)) => {
                world.tokens.insert(role, tokens);
            }
            Ok(Record::Identity(id, identity)) => {
                world.identities.insert(id, identity);
            }
            Ok(Record::Denied(serial, denied)) => {
                world.denied.insert(serial, denied);
            }
            Ok(Record::Rotation(rotation)) => world.rotation = Some(rotation),
            Ok(Record::Verification(asked)) => world.verification = Some(asked),
            Ok(Record::MemberRotation(rotation)) => world.member_rotation = Some(rotation),
            Ok(Record::Stop(task)) => {
                world.stops.insert(task, kv.modified);
            }
            Ok(Record::Other) => {}
            Err(why) => {
                world.poison.insert(kv.key.to_string(), why);
            }
        }
        if *kv.key == *records::GENERATION {
            world.generation = records::generation([&kv]);
        }
        let text = Text::of(&kv);
        self.texts.insert(kv.key, text);
    }

    fn delete(&mut self, key: &str) {
        let Some(text) = self.texts.remove(key) else { return };
        let world = &mut self.world;
        world.revs.remove(key);
        world.poison.remove(key);
        if key == records::GENERATION {
            world.generation = 0;
        }
        match records::decode(key, &text.value) {
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
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, rev: u64) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), created: Rev(rev), modified: Rev(rev), lease: None }
    }

    fn listing(rev: u64, kvs: Vec<KeyValue>) -> Listing {
        Listing { cluster: "c1".to_owned(), rev: Rev(rev), kvs }
    }

    fn stops(count: usize, rev: u64) -> Vec<KeyValue> {
        (0..count).map(|n| kv(&format!("svc/{n}"), "poison", rev)).collect()
    }

    #[test]
    fn old_revisions_are_passed_over() {
        let mut replica = Replica::default();
        replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
        replica.apply(Batch { rev: Rev(5), events: vec![Event::Delete("stop/t".to_owned())] });
        assert_eq!(replica.world().stops.len(), 1);
        replica.apply(Batch { rev: Rev(6), events: vec![Event::Delete("stop/t".to_owned())] });
        assert!(replica.world().stops.is_empty());
    }

    #[test]
    fn signs_of_life_do_not_count_as_change() {
        let mut replica = Replica::default();
        replica.resync(listing(5, vec![]), false).unwrap();
        let live = kv("live/n1", r#"{"epoch":1,"applied":5}"#, 6);
        replica.apply(Batch { rev: Rev(6), events: vec![Event::Put(live)] });
        assert_eq!((replica.world().rev, replica.world().changed), (Rev(6), Rev(0)));
        assert_eq!(replica.world().live.len(), 1);
        assert!(replica.to_cache().unwrap().kvs.is_empty());
    }

    #[test]
    fn an_empty_store_does_not_empty_the_world() {
        let mut replica = Replica::default();
        replica.resync(listing(5, stops(20, 5)), false).unwrap();
        let refused = replica.resync(listing(9, vec![]), false).unwrap_err();
        assert_eq!(refused, Refused::TooManyDeletions { what: "services", missing: 20, known: 20 });
        assert_eq!(replica.texts.len(), 20, "nothing half-applied");
        replica.resync(listing(9, stops(16, 5)), false).unwrap();
        replica.resync(listing(9, vec![]), true).unwrap();
        assert!(replica.texts.is_empty());
    }

    #[test]
    fn another_store_or_an_older_one_changes_nothing() {
        let mut replica = Replica::default();
        replica.resync(listing(5, vec![]), false).unwrap();
        assert!(matches!(replica.resync(listing(4, vec![]), false), Err(Refused::WentBack { .. })));
        let other = Listing { cluster: "c2".to_owned(), rev: Rev(9), kvs: vec![] };
        assert!(matches!(replica.resync(other, true), Err(Refused::WrongCluster { .. })));
    }

    #[test]
    fn a_later_generation_is_meant() {
        let generation = |number: u64, rev| {
            let mut kvs = stops(1, rev);
            kvs.push(kv(records::GENERATION, &number.to_string(), rev));
            listing(rev, kvs)
        };
        let mut replica = Replica::default();
        replica.resync(listing(90, stops(20, 5)), false).unwrap();
        replica.resync(generation(7, 3), false).unwrap();
        assert_eq!((replica.world().rev, replica.world().changed, replica.texts.len()), (Rev(3), Rev(3), 2));
        assert!(matches!(replica.resync(generation(7, 2), false), Err(Refused::WentBack { .. })));
        assert!(matches!(replica.resync(generation(6, 2), false), Err(Refused::WentBack { .. })));
        replica.resync(generation(8, 2), false).unwrap();
        let other = Listing { cluster: "c2".to_owned(), ..generation(9, 9) };
        assert!(matches!(replica.resync(other, false), Err(Refused::WrongCluster { .. })));
    }

    #[test]
    fn going_back_on_purpose_is_a_change() {
        let mut replica = Replica::default();
        replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
        replica.resync(listing(3, vec![kv("stop/t", "{}", 3)]), true).unwrap();
        assert_eq!((replica.world().rev, replica.world().changed), (Rev(3), Rev(3)));
    }

    #[test]
    fn signs_of_life_listed_apart_are_not_undone_by_what_is_older() {
        let mut replica = Replica::default();
        replica.resync(listing(5, vec![kv("stop/t", "{}", 5)]), false).unwrap();
        let live = |rev| kv("live/n1", r#"{"epoch":1,"applied":5}"#, rev);
        replica.refresh_live(listing(9, vec![live(8)])).unwrap();
        assert_eq!(replica.world().rev, Rev(5), "the rest is still to come");
        replica.apply(Batch { rev: Rev(6), events: vec![Event::Put(live(6))] });
        replica.apply(Batch { rev: Rev(7), events: vec![Event::Delete("live/n1".to_owned())] });
        assert_eq!(replica.world().rev_of("live/n1"), Rev(8));
        replica.apply(Batch { rev: Rev(10), events: vec![Event::Delete("live/n1".to_owned())] });
        assert!(replica.world().live.is_empty());
        let other = Listing { cluster: "c2".to_owned(), rev: Rev(99), kvs: vec![] };
        assert!(matches!(replica.refresh_live(other), Err(Refused::WrongCluster { .. })));
    }

    #[test]
    fn poison_is_set_aside_and_leaves_when_mended() {
        let mut replica = Replica::default();
        replica.resync(listing(1, vec![kv("svc/a", "{", 1), kv("stop/t", "{}", 1)]), false).unwrap();
        assert_eq!(replica.world().poison.len(), 1);
        assert_eq!(replica.world().stops.len(), 1);
        replica.apply(Batch { rev: Rev(2), events: vec![Event::Delete("svc/a".to_owned())] });
        assert!(replica.world().poison.is_empty());
    }

    #[test]
    fn the_cache_gives_the_same_world_back() {
        let mut replica = Replica::default();
        replica.resync(listing(3, vec![kv("stop/t", "{}", 3), kv("guard/ports", "1", 2)]), false).unwrap();
        let again = Replica::from_cache(replica.to_cache().unwrap());
        assert_eq!(again.world(), replica.world());
    }
}
