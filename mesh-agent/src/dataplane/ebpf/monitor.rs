//! **Fact.** What becomes of flows, as the programs tell it while somebody watches.
//!
//! A flag in the configuration has them tell. It is set for as long as there is a [`Watching`], so that otherwise a
//! packet costs one load more and nobody wakes up.

use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{MapData, RingBuf};
use mesh_ebpf::abi::Record;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::maps::SharedConfig;

/// Records that wait for a watcher who is slow.
const BACKLOG: usize = 4096;

/// Where those who watch are known.
pub(super) struct Monitor {
    records: broadcast::Sender<Record>,
    watchers: Mutex<usize>,
    config: SharedConfig,
    /// Nobody reads the ring any more.
    ended: CancellationToken,
}

/// Somebody watches.
pub struct Watching {
    monitor: Arc<Monitor>,
    records: broadcast::Receiver<Record>,
}

/// The ring's only reader.
pub struct Reader {
    ring: RingBuf<MapData>,
    monitor: Arc<Monitor>,
}

impl Monitor {
    pub(super) fn new(config: SharedConfig) -> Arc<Self> {
        let (records, _) = broadcast::channel(BACKLOG);
        Arc::new(Self { records, watchers: Mutex::new(0), config, ended: CancellationToken::new() })
    }

    pub(super) fn reader(self: &Arc<Self>, ring: RingBuf<MapData>) -> Reader {
        Reader { ring, monitor: Arc::clone(self) }
    }

    /// Has the programs tell, from now on.
    pub(super) fn watch(self: &Arc<Self>) -> Watching {
        let records = self.records.subscribe();
        self.count(1);
        Watching { monitor: Arc::clone(self), records }
    }

    fn count(&self, change: isize) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        *watchers = watchers.saturating_add_signed(change);
        let watched = u8::from(*watchers > 0);
        self.config.change(|config| config.watched = watched);
    }
}

impl Watching {
    /// The next record, and how many were missed before it. None: the agent ends.
    pub async fn next(&mut self) -> Option<(Record, u64)> {
        let mut missed = 0;
        loop {
            let received = tokio::select! {
                () = self.monitor.ended.cancelled() => return None,
                received = self.records.recv() => received,
            };
            match received {
                Ok(record) => return Some((record, missed)),
                Err(broadcast::error::RecvError::Lagged(more)) => missed += more,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.monitor.count(-1);
    }
}

impl Reader {
    /// Passes on what the programs tell, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let Self { ring, monitor } = self;
        let _ended = monitor.ended.clone().drop_guard();
        // SAFETY: the ring owns its map, whose descriptor stays open and the same for as long as there is the ring.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let mut ring = match registered {
            Ok(ring) => ring,
            Err(error) => {
                error!("cannot wait for records of flows: {error}; `mesh monitor` shows none");
                return stop.cancelled().await;
            }
        };
        loop {
            let ready = tokio::select! {
                () = stop.cancelled() => return,
                ready = ring.readable_mut() => ready,
            };
            let Ok(mut ready) = ready else { return };
            while let Some(item) = ready.get_inner_mut().next() {
                // Nobody may be there any more.
                let _ = Record::read(&item).map(|record| monitor.records.send(record));
            }
            ready.clear_ready();
        }
    }
}
