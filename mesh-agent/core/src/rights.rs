//! **Decision.** Who may write what.
//!
//! A worker writes its own node's record, name, sign of life and guard, blocks that it claims, and its own tasks with
//! their slots, names and requests to stop; and only while no later agent of its node has started. Managers write
//! everything. What a judgement rests on becomes a condition of the transaction: it holds when that commits, or
//! the transaction conflicts and is decided anew.

mod worker;

use crate::kv::Txn;
use crate::model::{NodeId, Role, Snapshot};
use crate::records;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A node, by its certificate.
    Node(NodeId, Role),
    /// Who is trusted with everything: people on a manager, or who has the shared secret.
    Admin,
}

/// Why a transaction is refused, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub String);

/// Whether a transaction may be committed for who asks; the result is what to commit.
pub fn may_commit(world: &Snapshot, caller: &Caller, txn: Txn) -> Result<Txn, Forbidden> {
    match caller {
        Caller::Admin | Caller::Node(_, Role::Manager) => Ok(txn),
        Caller::Node(node, Role::Worker) => worker::judge(world, node, txn),
    }
}

/// Whether who asks may read a key. Hashes of tokens are nobody's business who cannot make any.
pub fn may_read(caller: &Caller, key: &str) -> bool {
    !matches!(caller, Caller::Node(_, Role::Worker)) || !key.starts_with(records::TOKENS)
}
