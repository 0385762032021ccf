//! **Decision.** The store's data model: keys, revisions, compare-and-set transactions, as etcd has them.
//!
//! [`KvState`] is the whole semantics, pure and in memory; an engine adds durability around it. Values are
//! UTF-8 (JSON), so that people can read what is stored.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod check;
mod group;

pub use group::Group;

/// A revision of the whole store: grows by one with each transaction that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Rev(pub u64);

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lease: keys under it vanish when it is not kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

/// One key with its history in numbers. Copies share both texts: an agent has several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
    /// The revision that made it.
    pub created: Rev,
    /// The revision that last wrote it.
    pub modified: Rev,
    /// The lease that it lives under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// There is no such key.
    Absent(String),
    /// There is such a key, whatever it holds.
    Exists(String),
    /// The key was last written at exactly this revision; revision 0: there is no such key.
    Modified(String, Rev),
}

impl Compare {
    /// The key it looks at.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Exists(key) | Self::Modified(key, _) => key,
        }
    }
}

/// A write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The lease to live under.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseId>,
    },
    /// Removes a key, if it is there.
    Delete(
        /// The key.
        String,
    ),
}

impl Op {
    /// The key it writes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete(key) => key,
        }
    }
}

/// All conditions hold, then all writes happen, at one revision; else none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Txn {
    /// Conditions.
    pub compares: Vec<Compare>,
    /// Writes; a key at most once.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Adds the condition that a key is absent, and writes it: the way to claim something.
    pub fn claim(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        self.compares.push(Compare::Absent(key.clone()));
        self.put(key, value);
    }

    /// Writes a key.
    pub fn put(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: None });
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<String>) {
        self.ops.push(Op::Delete(key.into()));
    }

    /// Adds the condition that a key is still as it was at a revision (0: absent).
    pub fn unchanged(&mut self, key: impl Into<String>, rev: Rev) {
        self.compares.push(Compare::Modified(key.into(), rev));
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum TxnOutcome {
    /// It happened, at this revision, durably.
    Committed {
        /// The revision.
        rev: Rev,
    },
    /// A condition did not hold; nothing was written.
    Conflict {
        /// The store's revision then.
        rev: Rev,
        /// The keys of the conditions that failed, as they are now; absent ones are left out.
        found: Vec<KeyValue>,
    },
    /// It may or may not have happened: read, and look for your own ids.
    Unknown {
        /// Why it is not known.
        why: String,
    },
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// Written.
    Put(KeyValue),
    /// Removed.
    Delete(
        /// The key.
        String,
    ),
}

impl Event {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete(key) => key,
        }
    }
}

/// All changes of one revision; revisions are never torn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The revision.
    pub rev: Rev,
    /// Its changes; empty in a heartbeat.
    pub events: Vec<Event>,
}

/// All keys under a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Which store this is; a mesh never mixes two.
    pub cluster: String,
    /// The revision.
    pub rev: Rev,
    /// In key order.
    pub kvs: Vec<KeyValue>,
}

/// Why a transaction is no transaction: a mistake of the caller's, never retried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum InvalidTxn {
    /// A key is written twice.
    #[error("key '{0}' is written twice in one transaction")]
    Twice(String),
    /// Too many writes.
    #[error("a transaction of {0} writes is larger than the limit of {MAX_OPS}")]
    TooLarge(usize),
    /// Too many bytes.
    #[error("a transaction of {0} bytes is larger than the limit of {MAX_BYTES}")]
    TooHeavy(usize),
    /// A key or a value is too long, or a key is empty.
    #[error("key '{key}': {why}")]
    Key {
        /// The key, or its beginning.
        key: String,
        /// What is wrong with it.
        why: Cow<'static, str>,
    },
    /// The lease is not there (any more).
    #[error("lease {0:?} is unknown or has expired")]
    UnknownLease(LeaseId),
}

/// How many writes a transaction can have, and how many conditions (etcd has `--max-txn-ops` for it).
pub const MAX_OPS: usize = 512;
/// How long a key can be, bytes.
pub const MAX_KEY: usize = 1024;
/// How long a value can be, bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// How long all keys and values of a transaction can be together, bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// How many revisions are kept for watches to resume from…
pub const HISTORY: usize = 10_000;
/// …as long as they are no more bytes than this: a few huge values must not fill the memory.
pub const HISTORY_BYTES: usize = 8 << 20;

/// An entry, found and ordered by its key.
#[derive(Debug, Clone)]
struct ByKey(KeyValue);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}
impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}
impl Eq for ByKey {}
impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

/// The state of a store, and the rules by which it changes.
#[derive(Debug, Clone, Default)]
pub struct KvState {
    rev: Rev,
    entries: BTreeSet<ByKey>,
    log: VecDeque<Batch>,
    log_bytes: usize,
    leases: BTreeMap<LeaseId, BTreeSet<Arc<str>>>,
}

impl KvState {
    /// The state as it was written down.
    pub fn restore(rev: Rev, entries: impl IntoIterator<Item = KeyValue>) -> Self {
        let mut state = Self { rev, ..Self::default() };
        let entries = entries.into_iter().inspect(|kv| {
            if let Some(lease) = kv.lease {
                state.leases.entry(lease).or_default().insert(Arc::clone(&kv.key));
            }
        });
        // At once: what comes one after the other would leave half of the room empty.
        state.entries = entries.map(ByKey).collect();
        state
    }

    /// Adds the history that was written down: whole revisions without a gap, the last one the present one. What is in
    /// both is kept once.
    #[must_use]
    pub fn with_history(mut self, log: impl IntoIterator<Item = Batch>) -> Self {
        log.into_iter().for_each(|batch| self.recall(batch));
        self
    }

    /// Adds one more revision of that.
    pub fn recall(&mut self, mut batch: Batch) {
        for event in &mut batch.events {
            if let Event::Put(kv) = event
                && let Some(same) = self.get(&kv.key).filter(|same| *same == kv)
            {
                *kv = same.clone();
            }
        }
        self.remember(batch);
    }

    /// The present revision.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// The oldest revision that history still holds; the next one, if it holds none.
    pub fn oldest(&self) -> Rev {
        self.log.front().map_or(Rev(self.rev.0 + 1), |batch| batch.rev)
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.entries.get(key).map(|ByKey(kv)| kv)
    }

    /// All keys that begin with a prefix, in order.
    pub fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a KeyValue> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .map(|ByKey(kv)| kv)
            .take_while(move |kv| kv.key.starts_with(prefix))
    }

    /// Leases that are known.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// Makes a lease known.
    pub fn grant(&mut self, lease: LeaseId) {
        self.leases.entry(lease).or_default();
    }

    /// The transaction that ends a lease: its keys go, all at once.
    pub fn revocation(&self, lease: LeaseId) -> Txn {
        let keys = self.leases.get(&lease).cloned().unwrap_or_default();
        Txn { compares: Vec::new(), ops: keys.iter().map(|key| Op::Delete(key.to_string())).collect() }
    }

    /// Forgets a lease.
    pub fn forget(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// What a transaction would do: the batch to write down and then [`KvState::install`], or the keys that
    /// stand in its way. A transaction that changes nothing gives a batch without events at the present revision.
    pub fn prepare(&self, txn: &Txn) -> Result<Result<Batch, Vec<KeyValue>>, InvalidTxn> {
        Group::of(self).txn(txn)
    }

    /// Takes over a batch that [`KvState::prepare`] made of this very state.
    pub fn install(&mut self, batch: Batch) {
        if batch.events.is_empty() {
            return;
        }
        self.rev = batch.rev;
        for event in &batch.events {
            let old = match event {
                Event::Put(kv) => self.entries.replace(ByKey(kv.clone())),
                Event::Delete(key) => self.entries.take(key.as_str()),
            };
            let lease = old.and_then(|ByKey(old)| old.lease);
            if let Some(keys) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                keys.remove(event.key());
            }
            if let Event::Put(KeyValue { key, lease: Some(lease), .. }) = event {
                self.leases.entry(*lease).or_default().insert(Arc::clone(key));
            }
        }
        self.remember(batch);
    }

    fn remember(&mut self, batch: Batch) {
        self.log_bytes += batch.weight();
        self.log.push_back(batch);
        while self.log.len() > HISTORY || (self.log_bytes > HISTORY_BYTES && self.log.len() > 1) {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_bytes -= oldest.weight();
        }
    }

    /// All whole revisions after one, oldest first; `Err` says up to where history is gone.
    pub fn newer(&self, after: Rev) -> Result<impl Iterator<Item = &Batch>, Rev> {
        let oldest = self.oldest();
        if after.0 + 1 < oldest.0 {
            return Err(Rev(oldest.0 - 1));
        }
        let seen = self.log.partition_point(|batch| batch.rev <= after);
        Ok(self.log.range(seen..))
    }

    /// Everything under a prefix after a revision; `Err` says up to where history is gone.
    pub fn since(&self, after: Rev, prefix: &str) -> Result<Vec<Batch>, Rev> {
        let newer = self.newer(after)?.map(|batch| filter(batch, prefix));
        Ok(newer.filter(|batch| !batch.events.is_empty()).collect())
    }
}

impl Batch {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        let events = self.events.iter().map(|event| match event {
            Event::Put(kv) => kv.key.len() + kv.value.len() + 64,
            Event::Delete(key) => key.len() + 32,
        });
        events.sum::<usize>() + 32
    }
}

/// What a watch of a prefix sees of a batch.
pub fn filter(batch: &Batch, prefix: &str) -> Batch {
    let events = batch.events.iter().filter(|event| event.key().starts_with(prefix)).cloned().collect();
    Batch { rev: batch.rev, events }
}

#[cfg(test)]
mod tests;
