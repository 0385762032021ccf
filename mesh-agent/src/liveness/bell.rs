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

    /// A task has ended. That stays so until its record is gone.
    pub fn gone(&self, id: &TaskId) {
        self.change(|known| _ = known.insert(id.clone(), Notice::Gone));
    }

    /// Whether a task fails its health check.
    pub fn sick(&self, id: &TaskId, is_sick: bool) {
        self.change(|known| match known.get(id) {
            None if is_sick => _ = known.insert(id.clone(), Notice::Sick),
            Some(Notice::Sick) if !is_sick => _ = known.remove(id),
            _ => {}
        });
    }

    /// Only these have a health check: others' fail no more.
    pub fn keep_sick(&self, is_checked: impl Fn(&TaskId) -> bool) {
        self.change(|known| known.retain(|id, notice| *notice == Notice::Gone || is_checked(id)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<TaskId, Notice>)) {
        let mut known = self.lock();
        let before = known.clone();
        change(&mut known);
        if *known != before {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn it_rings_when_there_is_news_and_who_has_ended_stays_so() {
        let (bell, mut world, id) = (Bell::new().unwrap(), Snapshot::default(), TaskId::new("t1"));
        let task = serde_json::json!({"id": "t1", "service": null, "slot": 0, "node": "n1", "epoch": 1, "addresses": {},
            "state": "running", "health": "none", "weight": 1, "draining": false, "message": "",
            "origin": {"kind": "netns", "path": "/x"}, "created": 0, "updated": 0});
        world.tasks.insert(id.clone(), Arc::new(serde_json::from_value(task).unwrap()));
        let known = |bell: &Bell| bell.known(&world).get(&id).copied();
        bell.sick(&id, false);
        assert!(!bell.was_rung());
        bell.sick(&id, true);
        assert!(bell.was_rung() && !bell.was_rung());
        bell.sick(&id, true);
        assert!(!bell.was_rung(), "that is known");
        bell.keep_sick(|_| true);
        assert_eq!(known(&bell), Some(Notice::Sick));
        bell.keep_sick(|_| false);
        assert!(bell.was_rung() && known(&bell).is_none(), "nothing checks it any more");
        bell.gone(&id);
        bell.sick(&id, true);
        bell.sick(&id, false);
        bell.keep_sick(|_| false);
        assert_eq!(known(&bell), Some(Notice::Gone));
        assert!(bell.known(&Snapshot::default()).is_empty(), "its record is gone");
    }
}
