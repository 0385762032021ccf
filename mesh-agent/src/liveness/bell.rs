//! **Fact.** What this node knows of its tasks before their records say it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_core::liveness::Notice;
use mesh_core::model::{Snapshot, TaskId};
use rustix::event::{EventfdFlags, eventfd};

/// Whoever learns something rings, and the thread that speaks to other nodes wakes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Mutex<BTreeMap<TaskId, Notice>>,
    /// Can be read once it was rung.
    rung: OwnedFd,
}

impl Bell {
    /// Nothing is known yet.
    pub fn new() -> io::Result<Self> {
        let rung = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { known: Mutex::default(), rung })))
    }

    /// What is known of a task now; none: nothing that others need to know.
    pub fn ring(&self, id: &TaskId, notice: Option<Notice>) {
        let before = match notice {
            Some(notice) => self.lock().insert(id.clone(), notice),
            None => self.lock().remove(id),
        };
        if before != notice {
            // It can only fail because it was rung more often than anybody counts.
            let _ = rustix::io::write(&self.0.rung, &1u64.to_ne_bytes());
        }
    }

    /// All that is known, of tasks that are there.
    pub(super) fn known(&self, world: &Snapshot) -> BTreeMap<TaskId, Notice> {
        let mut known = self.lock();
        known.retain(|id, _| world.tasks.contains_key(id));
        known.clone()
    }

    /// Whether it was rung since this was last asked.
    pub(super) fn was_rung(&self) -> bool {
        rustix::io::read(&self.0.rung, &mut [0; 8]).is_ok()
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.rung.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Notice>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
