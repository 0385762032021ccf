//! **Effect.** Brings the copy of the store to disk, off the path of what happens: at most ten times a second, and in a
//! tenth of the time at most, for a copy is written whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::kv::{HISTORY, Rev};
use mesh_core::model::Snapshot;
use mesh_core::replica::{Cache, Replica};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::cache;

/// At most once in this time…
const PACE: Duration = Duration::from_millis(100);
/// …and not before this many times what the last one took…
const REST: u32 = 10;
/// …and after a failure not again before this, which is the longest in any case.
const AGAIN: Duration = Duration::from_secs(5);
/// When only signs of life came, the revision is brought up to date this often, so that history still has it.
const STRIDE: u64 = HISTORY as u64 / 10;

/// What is on disk, as revision and newest change.
type Kept = Option<(Rev, Rev)>;

#[derive(Debug)]
pub(super) struct Keeper {
    /// None: nothing is kept.
    path: Option<PathBuf>,
    kept: Kept,
    latest: Kept,
    saving: Option<(Kept, Instant, JoinHandle<std::io::Result<()>>)>,
    not_before: Instant,
    /// What is wrong with what is on disk.
    pub(super) problem: Option<String>,
}

impl Keeper {
    /// Reads what was kept.
    pub(super) async fn open(path: Option<PathBuf>) -> (Self, Option<Cache>) {
        let from = path.clone();
        let load = move || from.map_or((None, None), |from| cache::load(&from));
        let (found, problem) = match spawn_blocking(load).await {
            Ok(loaded) => loaded,
            Err(error) => (None, Some(format!("reading the copy of the store failed: {error}"))),
        };
        if let Some(problem) = &problem {
            tracing::warn!(%problem);
        }
        let kept = found.as_ref().map(|cache| (cache.rev, cache.changed));
        let keeper = Self { path, kept, latest: kept, saving: None, not_before: Instant::now(), problem };
        (keeper, found)
    }

    /// Remembers what there is to keep.
    pub(super) fn note(&mut self, world: &Snapshot) {
        self.latest = Some((world.rev, world.changed));
    }

    /// What is there is to be written though its revision is on disk.
    pub(super) fn again(&mut self) {
        self.kept = None;
    }

    fn wanted(&self) -> bool {
        match (self.kept, self.latest) {
            _ if self.path.is_none() => false,
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(kept), Some(latest)) => kept.1 != latest.1 || latest.0.0.abs_diff(kept.0.0) >= STRIDE,
        }
    }

    /// Ready when [`Keeper::begin`] should be called. It may be dropped at any time.
    pub(super) async fn due(&mut self) {
        self.saved().await;
        if self.wanted() {
            sleep_until(self.not_before).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the writing that goes on, if any does.
    async fn saved(&mut self) {
        let Some((what, began, saving)) = &mut self.saving else {
            return;
        };
        let written = match saving.await {
            Ok(written) => written.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match written {
            Ok(()) => {
                self.kept = *what;
                self.problem = None;
                let rest = (began.elapsed() * REST).min(AGAIN);
                self.not_before = self.not_before.max(Instant::now() + rest);
            }
            Err(error) => {
                let at = self.path.as_deref().unwrap_or(Path::new("")).display();
                let problem = format!("the copy of the store cannot be kept in {at}: {error}");
                tracing::warn!(%problem);
                self.problem = Some(problem);
                self.not_before = Instant::now() + AGAIN;
            }
        }
        self.saving = None;
    }

    /// Begins to write.
    pub(super) fn begin(&mut self, replica: &Replica) {
        let began = Instant::now();
        let Some((cache, path)) = replica.to_cache().zip(self.path.clone()) else { return };
        let what = Some((cache.rev, cache.changed));
        self.not_before = began + PACE;
        self.saving = Some((what, began, spawn_blocking(move || cache::save(&path, &cache))));
    }

    /// Writes what is not on disk yet, and waits for it.
    pub(super) async fn finish(&mut self, replica: &Replica) {
        self.saved().await;
        if self.path.is_some() && self.latest != self.kept {
            self.begin(replica);
            self.saved().await;
        }
    }
}
