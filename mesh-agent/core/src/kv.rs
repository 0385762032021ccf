//! **Decision.** The store's data model: keys, revisions, compare-and-set transactions, as etcd has them.
//!
//! [`KvState`] is the whole semantics, pure and in memory; an engine adds durability around it. Values are
//! UTF-8 (JSON), so that people can read what is stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::{Deserialize, Serialize};

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

/// One key with its history in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTxn {
    /// A key is written twice.
    #[error("key '{0}' is written twice in one transaction")]
    Twice(String),
    /// Too many writes.
    #[error("a transaction of {0} writes is larger than the limit of {MAX_OPS}")]
    TooLarge(usize),
    /// A key or a value is too long, or a key is empty.
    #[error("key '{key}': {why}")]
    Key {
        /// The key, or its beginning.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The lease is not there (any more).
    #[error("lease {0:?} is unknown or has expired")]
    UnknownLease(LeaseId),
}

/// How many writes a transaction can have (etcd runs with the same `--max-txn-ops`).
pub const MAX_OPS: usize = 512;
/// How long a key can be, bytes.
pub const MAX_KEY: usize = 1024;
/// How long a value can be, bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// How many revisions are kept for watches to resume from.
pub const HISTORY: usize = 10_000;

/// The state of a store, and the rules by which it changes.
#[derive(Debug, Clone, Default)]
pub struct KvState {
    rev: Rev,
    entries: BTreeMap<String, KeyValue>,
    log: VecDeque<Batch>,
    leases: BTreeMap<LeaseId, BTreeSet<String>>,
}

impl KvState {
    /// The state as it was written down.
    pub fn restore(rev: Rev, entries: impl IntoIterator<Item = KeyValue>) -> Self {
        let mut state = Self { rev, ..Self::default() };
        for kv in entries {
            if let Some(lease) = kv.lease {
                state.leases.entry(lease).or_default().insert(kv.key.clone());
            }
            state.entries.insert(kv.key.clone(), kv);
        }
        state
    }

    /// The present revision.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// One key.
    pub fn get(&self, key: &str) -> Option<&KeyValue> {
        self.entries.get(key)
    }

    /// All keys that begin with a prefix, in order.
    pub fn range<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a KeyValue> {
        self.entries
            .range(prefix.to_owned()..)
            .map(|(_, kv)| kv)
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
        Txn { compares: Vec::new(), ops: keys.into_iter().map(Op::Delete).collect() }
    }

    /// Forgets a lease.
    pub fn forget(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// Whether a condition holds.
    fn holds(&self, compare: &Compare) -> bool {
        let found = self.entries.get(compare.key());
        match compare {
            Compare::Absent(_) => found.is_none(),
            Compare::Exists(_) => found.is_some(),
            Compare::Modified(_, rev) => found.map_or(Rev(0), |kv| kv.modified) == *rev,
        }
    }

    /// What a transaction would do: the batch to write down and then [`KvState::install`], or the keys that
    /// stand in its way. A transaction that changes nothing gives a batch without events at the present revision.
    pub fn prepare(&self, txn: &Txn) -> Result<Result<Batch, Vec<KeyValue>>, InvalidTxn> {
        self.validate(txn)?;
        let failed: Vec<_> = txn.compares.iter().filter(|compare| !self.holds(compare)).collect();
        if !failed.is_empty() {
            return Ok(Err(failed.iter().filter_map(|c| self.entries.get(c.key()).cloned()).collect()));
        }
        let rev = Rev(self.rev.0 + 1);
        let events: Vec<_> = txn
            .ops
            .iter()
            .filter_map(|op| match op {
                Op::Put { key, value, lease } => Some(Event::Put(KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    created: self.entries.get(key).map_or(rev, |kv| kv.created),
                    modified: rev,
                    lease: *lease,
                })),
                Op::Delete(key) => self.entries.contains_key(key).then(|| Event::Delete(key.clone())),
            })
            .collect();
        let rev = if events.is_empty() { self.rev } else { rev };
        Ok(Ok(Batch { rev, events }))
    }

    fn validate(&self, txn: &Txn) -> Result<(), InvalidTxn> {
        if txn.ops.len() > MAX_OPS {
            return Err(InvalidTxn::TooLarge(txn.ops.len()));
        }
        let mut seen = BTreeSet::new();
        for op in &txn.ops {
            let refuse = |why| Err(InvalidTxn::Key { key: op.key().chars().take(80).collect(), why });
            if op.key().is_empty() {
                return refuse("is empty");
            }
            if op.key().len() > MAX_KEY {
                return refuse("is longer than 1024 bytes");
            }
            if !seen.insert(op.key()) {
                return Err(InvalidTxn::Twice(op.key().to_owned()));
            }
            if let Op::Put { value, lease, .. } = op {
                if value.len() > MAX_VALUE {
                    return refuse("has a value of more than 1 MiB");
                }
                if let Some(lease) = lease.filter(|lease| !self.leases.contains_key(lease)) {
                    return Err(InvalidTxn::UnknownLease(lease));
                }
            }
        }
        Ok(())
    }

    /// Takes over a batch that [`KvState::prepare`] made of this very state.
    pub fn install(&mut self, batch: Batch) {
        if batch.events.is_empty() {
            return;
        }
        self.rev = batch.rev;
        for event in &batch.events {
            let old = match event {
                Event::Put(kv) => self.entries.insert(kv.key.clone(), kv.clone()),
                Event::Delete(key) => self.entries.remove(key),
            };
            if let Some(keys) = old.and_then(|kv| kv.lease).and_then(|lease| self.leases.get_mut(&lease)) {
                keys.remove(event.key());
            }
            if let Event::Put(KeyValue { key, lease: Some(lease), .. }) = event {
                self.leases.entry(*lease).or_default().insert(key.clone());
            }
        }
        self.log.push_back(batch);
        if self.log.len() > HISTORY {
            self.log.pop_front();
        }
    }

    /// Everything after a revision, for a watch to resume from; `Err` says up to where history is gone.
    pub fn since(&self, after: Rev, prefix: &str) -> Result<Vec<Batch>, Rev> {
        let oldest = self.log.front().map_or(Rev(self.rev.0 + 1), |batch| batch.rev);
        if after.0 + 1 < oldest.0 {
            return Err(Rev(oldest.0 - 1));
        }
        let newer = self.log.iter().filter(|batch| batch.rev > after);
        Ok(newer.map(|batch| filter(batch, prefix)).filter(|batch| !batch.events.is_empty()).collect())
    }
}

/// What a watch of a prefix sees of a batch.
pub fn filter(batch: &Batch, prefix: &str) -> Batch {
    let events = batch.events.iter().filter(|event| event.key().starts_with(prefix)).cloned().collect();
    Batch { rev: batch.rev, events }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(state: &mut KvState, txn: &Txn) -> Rev {
        let batch = state.prepare(txn).unwrap().unwrap();
        let rev = batch.rev;
        state.install(batch);
        rev
    }

    fn put(key: &str, value: &str) -> Txn {
        let mut txn = Txn::default();
        txn.put(key, value);
        txn
    }

    #[test]
    fn a_claim_is_given_once() {
        let mut state = KvState::default();
        let mut claim = Txn::default();
        claim.claim("claim/vni/4096", "a");
        assert_eq!(commit(&mut state, &claim), Rev(1));
        let found = state.prepare(&claim).unwrap().unwrap_err();
        assert_eq!(found[0].value, "a");
        assert_eq!(state.rev(), Rev(1));
    }

    #[test]
    fn modified_compares_the_exact_revision_and_zero_is_absent() {
        let mut state = KvState::default();
        let mut cas = put("k", "1");
        cas.unchanged("k", Rev(0));
        let first = commit(&mut state, &cas);
        assert!(state.prepare(&cas).unwrap().is_err());
        let mut next = put("k", "2");
        next.unchanged("k", first);
        commit(&mut state, &next);
        assert_eq!(state.get("k").unwrap().created, first);
        assert!(state.prepare(&next).unwrap().is_err());
    }

    #[test]
    fn history_resumes_or_says_that_it_is_gone() {
        let mut state = KvState::default();
        for n in 0..(HISTORY + 5) {
            commit(&mut state, &put(if n % 2 == 0 { "a/x" } else { "b/x" }, &n.to_string()));
        }
        assert_eq!(state.since(Rev(2), ""), Err(Rev(5)));
        let rest = state.since(Rev(HISTORY as u64), "a/").unwrap();
        assert_eq!(rest.len(), 3);
        assert!(rest.iter().all(|batch| batch.events.iter().all(|e| e.key() == "a/x")));
        let restored = KvState::restore(state.rev(), state.range("").cloned().collect::<Vec<_>>());
        assert!(restored.since(Rev(3), "").is_err(), "a restored store has no history");
        assert_eq!(restored.since(restored.rev(), "").unwrap(), []);
    }

    #[test]
    fn a_lease_takes_its_keys_with_it() {
        let mut state = KvState::default();
        state.grant(LeaseId(7));
        let leased =
            |key: &str| Op::Put { key: key.to_owned(), value: "1".to_owned(), lease: Some(LeaseId(7)) };
        commit(&mut state, &Txn { compares: vec![], ops: vec![leased("a"), leased("b")] });
        commit(&mut state, &put("b", "now without"));
        let revocation = state.revocation(LeaseId(7));
        assert_eq!(revocation.ops, [Op::Delete("a".to_owned())]);
        let unknown = Txn {
            compares: vec![],
            ops: vec![Op::Put { key: "c".to_owned(), value: String::new(), lease: Some(LeaseId(8)) }],
        };
        assert_eq!(state.prepare(&unknown), Err(InvalidTxn::UnknownLease(LeaseId(8))));
    }

    #[test]
    fn nonsense_is_refused_and_nothing_written() {
        let state = KvState::default();
        let twice =
            Txn { compares: vec![], ops: vec![Op::Delete("k".to_owned()), Op::Delete("k".to_owned())] };
        assert!(matches!(state.prepare(&twice), Err(InvalidTxn::Twice(_))));
        assert!(matches!(state.prepare(&put("", "v")), Err(InvalidTxn::Key { .. })));
        assert!(matches!(state.prepare(&put("k", &"v".repeat(MAX_VALUE + 1))), Err(InvalidTxn::Key { .. })));
        let many = (0..=MAX_OPS).map(|n| Op::Delete(n.to_string())).collect();
        assert!(matches!(state.prepare(&Txn { compares: vec![], ops: many }), Err(InvalidTxn::TooLarge(_))));
    }
}
