//! **Decision.** Where in etcd what is, below the prefix:
//!
//! | key | what |
//! |---|---|
//! | `meta/cluster` | which mesh this is (`identity`) |
//! | `records/<key>` | the records, by the keys of `mesh_core::records` |
//! | `txn/<lease>/<n>` | marks of transactions (`marks`) |
//! | `secret/<name>` | what only managers may read, because only they speak to etcd (`members`) |

use mesh_core::kv::{Event, KeyValue, LeaseId, Rev};

/// The keys of a mesh.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    records: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), records: format!("{prefix}records/") }
    }

    /// What all begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn identity(&self) -> String {
        format!("{}meta/cluster", self.prefix)
    }

    pub(super) fn secret(&self, name: &str) -> String {
        format!("{}secret/{name}", self.prefix)
    }

    pub(super) fn mark(&self, lease: i64, number: u64) -> String {
        format!("{}txn/{lease:016x}/{number}", self.prefix)
    }

    /// Where a record is, or what all of a prefix begin with.
    pub(super) fn record(&self, key: &str) -> String {
        format!("{}{key}", self.records)
    }

    /// A record as etcd has it. Keys that are no text are nobody's; values that are none cannot be read, but are
    /// there.
    pub(super) fn read(&self, raw: &etcd_client::KeyValue) -> Option<KeyValue> {
        Some(KeyValue {
            key: self.name(raw.key())?.into(),
            value: String::from_utf8_lossy(raw.value()).into(),
            created: rev(raw.create_revision()),
            modified: rev(raw.mod_revision()),
            lease: u64::try_from(raw.lease()).ok().filter(|lease| *lease != 0).map(LeaseId),
        })
    }

    /// A change of a record.
    pub(super) fn event(&self, raw: &etcd_client::Event) -> Option<(Rev, Event)> {
        let kv = raw.kv()?;
        let event = match raw.event_type() {
            etcd_client::EventType::Put => Event::Put(self.read(kv)?),
            etcd_client::EventType::Delete => Event::Delete(self.name(kv.key())?.to_owned()),
        };
        Some((rev(kv.mod_revision()), event))
    }

    fn name<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.records)
    }
}

/// The first key after all that begin with a prefix, which is text: no byte of it is the last one.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// A revision as etcd counts them; it never sends a negative one.
pub(super) fn rev(revision: i64) -> Rev {
    Rev(u64::try_from(revision).unwrap_or(0))
}

/// A revision as etcd wants it.
pub(super) fn revision(rev: Rev) -> i64 {
    i64::try_from(rev.0).unwrap_or(i64::MAX)
}
