//! **Effect.** The store of one machine: in the agent's own process, in one file, durable.
//!
//! A mesh of one node needs nothing beside its agent. The rules are `mesh_core::kv`'s; here is what makes them
//! last: nothing is acknowledged, listed or shown to a watch before it is on disk.

mod check;
mod disk;
mod leases;
mod overlay;
mod watch;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mesh_core::kv::{KvState, LeaseId, Listing, Rev, Txn, TxnOutcome};
use tokio::sync::oneshot;

use self::disk::{Content, Disk};
use self::leases::Leases;
use self::writer::{Command, Writer};
use super::{Batches, Store, StoreError, StoreStatus};

/// How many commands may wait for the disk.
const WAITING: usize = 4096;
/// No lease lives longer without a sign of life.
const MAX_TTL: u64 = 24 * 60 * 60;

/// What readers and the writer share. It only ever holds what is on disk.
#[derive(Debug)]
struct Shared {
    at: String,
    cluster: String,
    state: RwLock<KvState>,
    problem: Mutex<Option<String>>,
    size: AtomicU64,
}

impl Shared {
    fn state(&self) -> RwLockReadGuard<'_, KvState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, KvState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem_slot(&self) -> MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem(&self) -> Option<String> {
        self.problem_slot().clone()
    }

    fn fail(&self, problem: &str) {
        *self.problem_slot() = Some(problem.to_owned());
    }

    fn at(&self) -> String {
        self.at.clone()
    }

    fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }
}

/// The store in a file of this machine. Dropping it waits for the last commit and gives the file free.
#[derive(Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
    commands: Option<SyncSender<Command>>,
    news: tokio::sync::watch::Receiver<Rev>,
    writer: Option<JoinHandle<()>>,
}

impl LocalStore {
    /// Opens the store of a file, or makes an empty one where there is none. It blocks: a large store takes
    /// a moment, for all of it is checked and read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let (disk, content) = Disk::open(path.as_ref())?;
        Self::start(disk, content)
    }

    /// Makes an empty one for a mesh that there is already, and whose records come here. What is at the path goes.
    pub fn make(path: impl AsRef<Path>, mesh: &str) -> Result<Self, StoreError> {
        let (disk, content) = Disk::make(path.as_ref(), mesh)?;
        Self::start(disk, content)
    }

    fn start(disk: Disk, content: Content) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            at: disk.path.display().to_string(),
            cluster: content.cluster,
            size: AtomicU64::new(disk.size()),
            problem: Mutex::new(None),
            state: RwLock::new(content.state),
        });
        let (commands, waiting) = sync_channel(WAITING);
        let rev = shared.state().rev();
        let (sender, news) = tokio::sync::watch::channel(rev);
        let writer = Writer {
            shared: Arc::clone(&shared),
            disk,
            leases: Leases::new(content.leases, Instant::now()),
            next_lease: content.next_lease,
            commands: waiting,
            news: sender,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(|| writer.run())
            .map_err(|error| StoreError::Unavailable {
                at: shared.at(),
                why: format!("no thread could be started to write it: {error}"),
            })?;
        Ok(Self { shared, commands: Some(commands), news, writer: Some(writer) })
    }

    /// Hands a command to the writer. An answer that never comes means that nothing is known.
    fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Command,
    ) -> Result<oneshot::Receiver<Result<T, StoreError>>, StoreError> {
        let unavailable = |why: &str| StoreError::Unavailable { at: self.shared.at(), why: why.to_owned() };
        let (answer, answered) = oneshot::channel();
        let Some(commands) = &self.commands else {
            return Err(unavailable("it is closed"));
        };
        match commands.try_send(command(answer)) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => Err(unavailable("too much waits for its disk already")),
            Err(TrySendError::Disconnected(_)) => Err(self.stopped()),
        }
    }

    fn stopped(&self) -> StoreError {
        StoreError::Unavailable {
            at: self.shared.at(),
            why: "its writer has stopped (see the agent's log); restart the agent".to_owned(),
        }
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(store = %self.shared.at, "the store's writer had stopped before");
        }
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let state = self.shared.state();
        let kvs = state.range(prefix).cloned().collect();
        Ok(Listing { cluster: self.shared.cluster.clone(), rev: state.rev(), kvs })
    }

    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        Ok(watch::stream(Arc::clone(&self.shared), self.news.clone(), prefix, after))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let answer = self.ask(|answer| Command::Txn(txn, answer))?;
        answer.await.unwrap_or_else(|_| Ok(TxnOutcome::Unknown { why: self.stopped().to_string() }))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let answer = self.ask(|answer| Command::Lease(seconds.clamp(1, MAX_TTL), answer))?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self.ask(|answer| Command::KeepAlive(lease, answer))?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        Ok(StoreStatus {
            cluster: self.shared.cluster.clone(),
            rev: self.shared.state().rev(),
            engine: "local".to_owned(),
            size: self.shared.size.load(Ordering::Relaxed),
            problem: self.shared.problem(),
        })
    }
}

#[cfg(test)]
mod tests;
