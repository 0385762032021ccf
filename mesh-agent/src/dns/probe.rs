//! **Effect.** Whether an upstream asks us what we ask it, as a name server does that forwards to the mesh: it is asked
//! for a name that nobody else ever asks for, and if that question comes in at one of our own sockets, it does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The type that is asked for; nobody needs its records (RFC 8482 made what is left of it).
const HINFO: u8 = 13;

/// Probes that are out.
#[derive(Default)]
pub(super) struct Probes(Mutex<HashMap<String, Arc<Notify>>>);

/// One of them, until it is dropped.
pub(super) struct Probe<'a> {
    all: &'a Probes,
    name: String,
    back: Arc<Notify>,
}

impl Probes {
    /// A new one; none: there is no randomness.
    pub(super) fn begin(&self) -> Option<Probe<'_>> {
        let name = format!("mesh-loop-{:016x}", getrandom::u64().ok()?);
        let back = Arc::new(Notify::new());
        self.all().insert(name.clone(), Arc::clone(&back));
        Some(Probe { all: self, name, back })
    }

    /// Whether a question that came in is one of ours that came back.
    pub(super) fn came_back(&self, name: &str) -> bool {
        let found = self.all().get(&name.trim_end_matches('.').to_ascii_lowercase()).map(Arc::clone);
        found.is_some_and(|back| {
            back.notify_one();
            true
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Probe<'_> {
    /// What to ask, in wire format with the id 0.
    pub(super) fn question(&self) -> Vec<u8> {
        // Recursion is desired, and there is one question.
        let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, self.name.len() as u8];
        packet.extend(self.name.bytes());
        packet.extend([0, 0, HINFO, 0, 1]);
        packet
    }

    /// Waits until it comes back.
    pub(super) async fn back(&self) {
        self.back.notified().await;
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.all.all().remove(&self.name);
    }
}
