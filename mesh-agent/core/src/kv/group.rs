//! **Decision.** Transactions prepared one upon another, so that one write to disk can carry many of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Batch, Compare, Event, InvalidTxn, KeyValue, KvState, LeaseId, Op, Rev, Txn};

/// Transactions one after another on top of a state that does not change meanwhile: each sees what those
/// before it did. So an engine can write many down at once, and show them only when they are safe.
#[derive(Debug)]
pub struct Group<'a> {
    base: &'a KvState,
    written: BTreeMap<Arc<str>, Option<KeyValue>>,
    ended: BTreeSet<LeaseId>,
    rev: Rev,
}

impl<'a> Group<'a> {
    /// Begins on a state.
    pub fn of(base: &'a KvState) -> Self {
        Self { base, written: BTreeMap::new(), ended: BTreeSet::new(), rev: base.rev }
    }

    /// The revision after all that was prepared.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    fn get(&self, key: &str) -> Option<&KeyValue> {
        self.written.get(key).map_or_else(|| self.base.get(key), Option::as_ref)
    }

    /// What one more transaction does; see [`KvState::prepare`].
    pub fn txn(&mut self, txn: &Txn) -> Result<Result<Batch, Vec<KeyValue>>, InvalidTxn> {
        self.validate(txn)?;
        let failed: Vec<_> = txn.compares.iter().filter(|compare| !self.holds(compare)).collect();
        if !failed.is_empty() {
            return Ok(Err(failed.iter().filter_map(|compare| self.get(compare.key()).cloned()).collect()));
        }
        Ok(Ok(self.write(&txn.ops)))
    }

    /// Ends a lease: all its keys go at one revision, however many there are.
    pub fn revoke(&mut self, lease: LeaseId) -> Batch {
        let mut keys = self.base.leases.get(&lease).cloned().unwrap_or_default();
        keys.extend(self.written.keys().cloned());
        keys.retain(|key| self.get(key).is_some_and(|kv| kv.lease == Some(lease)));
        self.ended.insert(lease);
        self.write(&keys.iter().map(|key| Op::Delete(key.to_string())).collect::<Vec<_>>())
    }

    fn write(&mut self, ops: &[Op]) -> Batch {
        let rev = Rev(self.rev.0 + 1);
        let events: Vec<_> = ops
            .iter()
            .filter_map(|op| match op {
                Op::Put { key, value, lease } => Some(Event::Put(KeyValue {
                    key: self.get(key).map_or_else(|| key.as_str().into(), |kv| Arc::clone(&kv.key)),
                    value: value.as_str().into(),
                    created: self.get(key).map_or(rev, |kv| kv.created),
                    modified: rev,
                    lease: *lease,
                })),
                Op::Delete(key) => self.get(key).is_some().then(|| Event::Delete(key.clone())),
            })
            .collect();
        if events.is_empty() {
            return Batch { rev: self.rev, events };
        }
        for event in &events {
            let now = match event {
                Event::Put(kv) => Some(kv.clone()),
                Event::Delete(_) => None,
            };
            self.written.insert(event.key().into(), now);
        }
        self.rev = rev;
        Batch { rev, events }
    }

    /// Whether a condition holds.
    fn holds(&self, compare: &Compare) -> bool {
        let found = self.get(compare.key());
        match compare {
            Compare::Absent(_) => found.is_none(),
            Compare::Exists(_) => found.is_some(),
            Compare::Modified(_, rev) => found.map_or(Rev(0), |kv| kv.modified) == *rev,
        }
    }

    fn validate(&self, txn: &Txn) -> Result<(), InvalidTxn> {
        txn.check()?;
        let known = |lease: &LeaseId| self.base.leases.contains_key(lease) && !self.ended.contains(lease);
        match txn.leases().find(|lease| !known(lease)) {
            Some(lease) => Err(InvalidTxn::UnknownLease(lease)),
            None => Ok(()),
        }
    }
}
