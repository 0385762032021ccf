//! **Effect.** The store: where the truth is. One trait, several engines, one conformance suite.
//!
//! The semantics are `mesh_core::kv`'s; an engine adds durability or a wire. See docs/adr/0006.

pub mod conformance;
pub mod etcd;
pub mod gate;
pub mod gateway;
pub mod local;
pub mod migrate;
mod secret;
pub mod timed;

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use mesh_core::kv::{Batch, InvalidTxn, LeaseId, Listing, Rev, Txn, TxnOutcome};

/// Why a watch ended. What to do about it is the watcher's to decide: resume, or list anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// History up to this revision is gone: list anew.
    #[error("the store has forgotten its history up to revision {0}")]
    Compacted(Rev),
    /// The connection broke or fell silent: resume.
    #[error("the connection to the store was lost: {0}")]
    Lost(String),
    /// It is another store than before.
    #[error("this is another store than before")]
    WrongCluster,
    /// The store is older than what was already seen.
    #[error("the store went back to revision {0}")]
    WentBack(Rev),
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The request itself is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidTxn),
    /// The store does not answer; nothing was written.
    #[error("the store at {at} does not answer: {why}")]
    Unavailable {
        /// Address or file.
        at: String,
        /// What happened.
        why: String,
    },
    /// The store refuses us.
    #[error("the store at {at} refuses this node: {why}")]
    Denied {
        /// Address.
        at: String,
        /// What to do.
        why: String,
    },
    /// The store's files make no sense; nothing was changed.
    #[error("the store in {at} cannot be used: {why}")]
    Corrupt {
        /// File.
        at: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The lease has ended.
    #[error("lease {0:?} has ended")]
    LeaseGone(LeaseId),
}

/// Which store this is and how it fares.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoreStatus {
    /// Unlike any other store's.
    pub cluster: String,
    /// The newest revision.
    pub rev: Rev,
    /// `local`, …
    pub engine: String,
    /// Size on disk, bytes.
    pub size: u64,
    /// Why it takes no more writes, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Whole revisions in order, each once. Batches without events are heartbeats: they say that nothing was
/// missed up to their revision. The stream ends after its first error.
pub type Batches = Pin<Box<dyn Stream<Item = Result<Batch, WatchEnd>> + Send>>;

/// Where the truth is.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// All keys under a prefix, at one revision.
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError>;

    /// Everything under a prefix that comes after a revision. A heartbeat comes at least every second.
    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError>;

    /// Runs a transaction. An error means that nothing was written; [`TxnOutcome::Unknown`] that it may have been.
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// A new lease: keys under it vanish once it was not kept alive for `ttl` (whole seconds, at least 1).
    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Starts a lease's time anew.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Which store this is and how it fares.
    async fn status(&self) -> Result<StoreStatus, StoreError>;
}
