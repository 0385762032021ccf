//! **Effect.** A store that can be held still: while its records are moved elsewhere nothing is written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mesh_core::kv::{LeaseId, Listing, Rev, Txn, TxnOutcome};
use tokio::sync::RwLock;

use super::{Batches, Store, StoreError, StoreStatus};

/// A store with a gate before its writes.
pub struct Gate {
    store: Arc<dyn Store>,
    open: RwLock<bool>,
}

impl Gate {
    /// Open at first.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, open: RwLock::new(true) }
    }

    /// Shuts it. When this returns no write is under way, and none will be.
    pub async fn shut(&self) {
        *self.open.write().await = false;
    }

    /// Opens it again.
    pub async fn open(&self) {
        *self.open.write().await = true;
    }
}

fn shut() -> StoreError {
    StoreError::Unavailable {
        at: "this node".to_owned(),
        why: "its records are being moved; try again in a moment".to_owned(),
    }
}

#[async_trait]
impl Store for Gate {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }

    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let open = self.open.read().await;
        if *open { self.store.txn(txn).await } else { Err(shut()) }
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let open = self.open.read().await;
        if *open { self.store.lease(ttl).await } else { Err(shut()) }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.keep_alive(lease).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.store.status().await
    }
}
