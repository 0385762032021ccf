//! **Decision.** Whether a transaction is one at all, whatever the store holds.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::{InvalidTxn, LeaseId, MAX_BYTES, MAX_KEY, MAX_OPS, MAX_VALUE, Op, Txn};

impl Txn {
    /// The leases that it puts keys under.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete(_) => None,
        })
    }

    /// What can be said without knowing the store: sizes, and that no key is written twice.
    pub fn check(&self) -> Result<(), InvalidTxn> {
        if self.ops.len() > MAX_OPS || self.compares.len() > MAX_OPS {
            return Err(InvalidTxn::TooLarge(self.ops.len().max(self.compares.len())));
        }
        if let Some(compare) = self.compares.iter().find(|compare| compare.key().len() > MAX_KEY) {
            return Err(refused(compare.key(), "is longer than 1024 bytes"));
        }
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        for op in &self.ops {
            bytes += check_op(op)?;
            if !seen.insert(op.key()) {
                return Err(InvalidTxn::Twice(op.key().to_owned()));
            }
        }
        if bytes > MAX_BYTES {
            return Err(InvalidTxn::TooHeavy(bytes));
        }
        Ok(())
    }
}

/// How many bytes a write is.
fn check_op(op: &Op) -> Result<usize, InvalidTxn> {
    let key = op.key();
    if key.is_empty() {
        return Err(refused(key, "is empty"));
    }
    if key.len() > MAX_KEY {
        return Err(refused(key, "is longer than 1024 bytes"));
    }
    match op {
        Op::Put { value, .. } if value.len() > MAX_VALUE => {
            Err(refused(key, "has a value of more than 1 MiB"))
        }
        Op::Put { value, .. } => Ok(key.len() + value.len()),
        Op::Delete(_) => Ok(key.len()),
    }
}

fn refused(key: &str, why: &'static str) -> InvalidTxn {
    InvalidTxn::Key { key: key.chars().take(80).collect(), why: Cow::Borrowed(why) }
}
