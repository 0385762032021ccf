//! **Effect.** Carries decisions out: takes the newest snapshot, has `mesh_core::change` decide, commits, and
//! waits until this node has seen it.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::{Change, Fresh, Refusal};
use mesh_core::kv::{Listing, Op, Rev, Txn, TxnOutcome};
use mesh_core::model::{NodeId, Snapshot, Timestamp};
use tokio::sync::watch;

use crate::status::Status;
use crate::store::{Store, StoreError};

/// How often a change is decided anew when others write at the same time.
const ATTEMPTS: u32 = 30;
/// How long a store that has not told what became of a change is asked for it, at least.
const FIND_OUT: Duration = Duration::from_secs(4);
/// How long to wait for the node's own copy to catch up.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Why a change did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The decision said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others kept changing the same things.
    #[error("others keep changing the same records; try again")]
    Contended,
    /// Something on this node is in the way.
    #[error("{0}")]
    Local(String),
    /// It cannot be found out whether it happened.
    #[error("it is not known whether the change was made ({0}); look, and try again if not")]
    Unsure(String),
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done<T> {
    /// The revision that made it.
    pub rev: Rev,
    /// What is there now.
    pub result: T,
}

/// The way to read and change the mesh from this node. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    node: NodeId,
    store: Arc<dyn Store>,
    world: watch::Receiver<Arc<Snapshot>>,
    status: watch::Receiver<Arc<Status>>,
}

impl Control {
    /// Puts the parts together.
    pub fn new(
        node: NodeId,
        store: Arc<dyn Store>,
        world: watch::Receiver<Arc<Snapshot>>,
        status: watch::Receiver<Arc<Status>>,
    ) -> Self {
        Self { node, store, world, status }
    }

    /// This node.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The world as this node knows it.
    pub fn world(&self) -> Arc<Snapshot> {
        Arc::clone(&self.world.borrow())
    }

    /// Tells of new worlds.
    pub fn worlds(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.world.clone()
    }

    /// What came of the last rounds.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// Tells of new rounds.
    pub fn statuses(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Decides and commits. The id in `Fresh` stays the same over all attempts, so that after an unknown
    /// outcome our own writes can be told from others'.
    pub async fn change<T>(
        &self,
        decide: impl Fn(&Snapshot, Fresh) -> Result<Change<T>, Refusal> + Send,
    ) -> Result<Done<T>, ControlError> {
        let fresh = Fresh { id: random(), now: now() };
        let mut pause = Duration::from_millis(2);
        for _ in 0..ATTEMPTS {
            let world = self.world();
            let change = decide(&world, fresh)?;
            if change.txn.ops.is_empty() {
                return Ok(Done { rev: world.rev, result: change.result });
            }
            match self.store.txn(change.txn.clone()).await? {
                TxnOutcome::Committed { rev } => {
                    self.seen(rev).await;
                    return Ok(Done { rev, result: change.result });
                }
                TxnOutcome::Conflict { rev, .. } => {
                    // A copy that already has this revision and still conflicts raced with another writer.
                    self.seen(rev).await;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                TxnOutcome::Unknown { why } => {
                    let rev = self.find_out(&change.txn).await.map_err(|_| ControlError::Unsure(why))?;
                    if let Some(rev) = rev {
                        self.seen(rev).await;
                        return Ok(Done { rev, result: change.result });
                    }
                }
            }
        }
        Err(ControlError::Contended)
    }

    /// Waits until this node's copy has what the store has now.
    pub async fn current(&self) -> Result<(), StoreError> {
        let status = self.store.status().await?;
        self.seen(status.rev).await;
        Ok(())
    }

    /// Waits until this node's copy has a revision.
    pub async fn seen(&self, rev: Rev) {
        let mut world = self.world.clone();
        let reached = world.wait_for(|world| world.rev >= rev);
        // When it does not come in time the caller's answer is right all the same, only early.
        let _ = tokio::time::timeout(CATCH_UP, reached).await;
    }

    /// Whether a transaction of ours is in the store, after nobody told: every write must be there.
    async fn find_out(&self, txn: &Txn) -> Result<Option<Rev>, StoreError> {
        let mut newest = Rev(0);
        for op in &txn.ops {
            let listing = self.list(op.key()).await?;
            let found = listing.kvs.iter().find(|kv| *kv.key == *op.key());
            match (op, found) {
                (Op::Put { value, .. }, Some(kv)) if *kv.value == **value => newest = newest.max(kv.modified),
                (Op::Delete(_), None) => newest = newest.max(listing.rev),
                (Op::Put { .. } | Op::Delete(_), _) => return Ok(None),
            }
        }
        Ok(Some(newest))
    }

    async fn list(&self, key: &str) -> Result<Listing, StoreError> {
        let began = tokio::time::Instant::now();
        loop {
            match self.store.list(key).await {
                Ok(listing) => return Ok(listing),
                Err(error) if began.elapsed() > FIND_OUT => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Milliseconds since 1970.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Sixteen random bytes.
pub fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Only before the kernel's pool is ready; the time is then as good as it gets.
        bytes = u128::from(now()).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes();
    }
    bytes
}
