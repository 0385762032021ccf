//! **Effect.** Watches of the local store: each reads the shared history at its own pace.
//!
//! Nothing is queued per watcher, so a slow one costs no memory: it falls behind until history is gone, and
//! is then told so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use mesh_core::kv::{Batch, Rev, filter};
use tokio::sync::watch;

use super::Shared;
use crate::store::{Batches, WatchEnd};

/// How long a watch is silent at most.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How much is copied out of history at a time, bytes.
const PORTION: usize = 1 << 20;

struct Watcher {
    shared: Arc<Shared>,
    news: watch::Receiver<Rev>,
    prefix: String,
    /// Everything up to here was told, or is of other keys.
    seen: Rev,
    ready: VecDeque<Batch>,
    /// Whether it was said once that nothing is missing.
    greeted: bool,
    ended: bool,
}

/// Everything under a prefix after a revision. The first heartbeat comes as soon as there is nothing more to tell.
pub(super) fn stream(shared: Arc<Shared>, news: watch::Receiver<Rev>, prefix: &str, after: Rev) -> Batches {
    let watcher = Watcher {
        shared,
        news,
        prefix: prefix.to_owned(),
        seen: after,
        ready: VecDeque::new(),
        greeted: false,
        ended: false,
    };
    Box::pin(stream::unfold(watcher, |mut watcher| async move {
        if watcher.ended {
            return None;
        }
        let next = watcher.next().await;
        watcher.ended = next.is_err();
        Some((next, watcher))
    }))
}

impl Watcher {
    async fn next(&mut self) -> Result<Batch, WatchEnd> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            // Before reading, so that what comes in between is news again.
            self.news.borrow_and_update();
            let more = self.read()?;
            if !self.ready.is_empty() || more {
                continue;
            }
            if !self.greeted {
                self.greeted = true;
                return Ok(self.heartbeat());
            }
            match tokio::time::timeout(HEARTBEAT, self.news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(WatchEnd::Lost("the store was closed".to_owned())),
                Err(_) => return Ok(self.heartbeat()),
            }
        }
    }

    fn heartbeat(&self) -> Batch {
        Batch { rev: self.seen, events: Vec::new() }
    }

    /// Copies the next portion of history; says whether there is more.
    fn read(&mut self) -> Result<bool, WatchEnd> {
        let state = self.shared.state();
        if self.seen > state.rev() {
            return Err(WatchEnd::WentBack(state.rev()));
        }
        let mut weight = 0;
        for batch in state.newer(self.seen).map_err(WatchEnd::Compacted)? {
            if weight > PORTION {
                return Ok(true);
            }
            self.seen = batch.rev;
            let batch = filter(batch, &self.prefix);
            if !batch.events.is_empty() {
                weight += batch.weight();
                self.ready.push_back(batch);
            }
        }
        Ok(false)
    }
}
