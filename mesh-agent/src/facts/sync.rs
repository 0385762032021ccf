//! **Fact.** This node's copy of the store: always the newest that could be had, never less than before.
//!
//! A node forwards with what it knows. So the copy is kept on disk for the next start, a store that is gone
//! only stops it from growing, and one that seems wrong (another one, an older one, one that lost much)
//! changes nothing until someone says so. What a copy takes over is `mesh_core::replica`'s decision.
//!
//! Records that the agent breaks by are set aside (`caution`).

mod cache;
mod caution;
mod keeper;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use mesh_core::kv::{Batch, Rev};
use mesh_core::model::Snapshot;
use mesh_core::quarantine;
use mesh_core::records;
use mesh_core::replica::{Refused, Replica};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::caution::{Caution, Complaint, Plans, ripen};
use self::keeper::Keeper;
use crate::status::StoreHealth;
use crate::store::etcd::Known;
use crate::store::{Batches, Store, WatchEnd};

/// What this node last knew, from its copy on disk alone; none if there is no copy that can be read.
pub fn last_known(path: &Path) -> Option<Snapshot> {
    let (cache, _) = cache::load(path);
    Some(Replica::from_cache(cache?).world().clone())
}

/// Which mesh this node last belonged to, and how far it had followed it, from its copy on disk alone.
pub fn known(path: &Path) -> Known {
    let (cache, _) = cache::load(path);
    cache.map_or_else(Known::default, |cache| Known {
        generation: records::generation(&cache.kvs),
        cluster: Some(cache.cluster),
        rev: cache.rev,
    })
}

/// A watch says something at least each second; after this it is dead.
const SILENCE: Duration = Duration::from_secs(3);
/// How long a store may take to say how it is, and to list everything.
const STATUS: Duration = Duration::from_secs(5);
const LISTING: Duration = Duration::from_secs(60);
/// The first wait before connecting again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How many revisions that are there already are taken over before they are published.
const BURST: usize = 1024;

/// What an operator can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncOptions {
    /// The first full listing may remove as much as it likes, and be older than what was known.
    pub accept_deletions: bool,
}

/// Follows the store until told to stop, and then keeps what is known on disk. `cache` is a file beside which
/// others are made; none: nothing is kept.
pub async fn run(
    store: Arc<dyn Store>,
    cache: Option<PathBuf>,
    options: SyncOptions,
    caution: Caution,
    world: watch::Sender<Arc<Snapshot>>,
    health: watch::Sender<StoreHealth>,
    stop: CancellationToken,
) {
    if caution.holds() {
        tokio::select! {
            () = stop.cancelled() => return,
            () = caution.hold(cache.as_deref(), &world, &health) => {}
        }
    }
    let mut sync = Sync::begin(store, cache, options, caution, world, health).await;
    let mut wait = BACKOFF.0;
    loop {
        let problem = tokio::select! {
            () = stop.cancelled() => break,
            problem = sync.session() => problem,
        };
        if std::mem::take(&mut sync.caught_up) {
            wait = BACKOFF.0;
        }
        tracing::warn!(%problem, "not in step with the store; going on with what is known");
        sync.link = Some(problem);
        sync.report(false);
        sync.keeper.finish(&sync.replica).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(jitter(wait)) => {}
            complaint = sync.caution.complaint() => sync.blame(complaint).await,
        }
        wait = (wait * 2).min(BACKOFF.1);
    }
    sync.keeper.finish(&sync.replica).await;
}

/// The copy and whom it is for.
struct Sync {
    store: Arc<dyn Store>,
    replica: Replica,
    /// Whether the next full listing may do as it likes.
    accept_deletions: bool,
    /// Whether signs of life were listed; a cache has none.
    live_known: bool,
    /// Whether this session got to where nothing was missing.
    caught_up: bool,
    /// Why there is no connection.
    link: Option<String>,
    /// What the store says of itself.
    store_problem: Option<String>,
    engine: String,
    keeper: Keeper,
    caution: Caution,
    world: watch::Sender<Arc<Snapshot>>,
    health: watch::Sender<StoreHealth>,
}

impl Sync {
    /// Publishes at once what was kept on disk.
    async fn begin(
        store: Arc<dyn Store>,
        cache: Option<PathBuf>,
        options: SyncOptions,
        caution: Caution,
        world: watch::Sender<Arc<Snapshot>>,
        health: watch::Sender<StoreHealth>,
    ) -> Self {
        let good = cache.clone();
        let (keeper, kept) = Keeper::open(cache).await;
        let engine = health.borrow().engine.clone();
        let mut sync = Self {
            store,
            replica: kept.map(Replica::from_cache).unwrap_or_default(),
            accept_deletions: options.accept_deletions,
            live_known: false,
            caught_up: false,
            link: Some("the store was not reached yet".to_owned()),
            store_problem: None,
            engine,
            keeper,
            caution,
            world,
            health,
        };
        sync.caution.leave_out(&mut sync.replica, good.as_deref());
        if sync.replica.cluster().is_some() {
            sync.publish();
        }
        sync.report(false);
        sync
    }

    /// Follows the store for as long as that goes; says in words why it no longer does.
    async fn session(&mut self) -> String {
        match self.follow_from_here().await {
            Ok(never) => match never {},
            Err(problem) => problem,
        }
    }

    async fn follow_from_here(&mut self) -> Result<std::convert::Infallible, String> {
        let status = timeout(STATUS, self.store.status()).await.map_err(|_| silent(STATUS))?;
        let status = status.map_err(|error| error.to_string())?;
        self.engine.clone_from(&status.engine);
        self.store_problem.clone_from(&status.problem);
        let mut listed = false;
        let renewed = self.is_renewed().await?;
        match self.replica.doubt(&status.cluster, status.rev) {
            Err(Refused::WentBack { .. }) if self.accept_deletions || renewed => {}
            doubt => doubt.map_err(|refused| refused.to_string())?,
        }
        if self.replica.cluster().is_none() || self.accept_deletions || renewed {
            self.list_all().await?;
            listed = true;
        } else if !self.live_known {
            self.list_live().await?;
        }
        loop {
            let after = self.replica.world().rev;
            let watch = timeout(STATUS, self.store.watch("", after)).await.map_err(|_| silent(STATUS))?;
            let watch = watch.map_err(|error| error.to_string())?;
            match self.follow(watch, status.rev).await {
                // Only a watch that had begun well may lead to another listing at once.
                WatchEnd::Compacted(_) if !listed || self.caught_up => {
                    tracing::info!(%after, "the store has forgotten what came after; listing everything");
                    self.caught_up = false;
                    self.list_all().await?;
                    listed = true;
                }
                WatchEnd::WentBack(found) => {
                    return Err(Refused::WentBack { seen: self.replica.world().rev, found }.to_string());
                }
                end @ (WatchEnd::Compacted(_) | WatchEnd::Lost(_) | WatchEnd::WrongCluster) => {
                    return Err(end.to_string());
                }
            }
        }
    }

    /// Whether the records were moved, restored or saved since they were last seen: their revisions began anew.
    async fn is_renewed(&self) -> Result<bool, String> {
        let listing = timeout(STATUS, self.store.list(records::GENERATION)).await;
        let listing = listing.map_err(|_| silent(STATUS))?.map_err(|error| error.to_string())?;
        Ok(records::generation(&listing.kvs) > self.replica.generation())
    }

    async fn list_all(&mut self) -> Result<(), String> {
        let listing = timeout(LISTING, self.store.list("")).await.map_err(|_| silent(LISTING))?;
        let listing = listing.map_err(|error| error.to_string())?;
        self.replica.resync(listing, self.accept_deletions).map_err(|refused| refused.to_string())?;
        self.live_known = true;
        // It was said of the store as it is now, not of whatever may become of it.
        self.accept_deletions = false;
        self.publish();
        Ok(())
    }

    async fn list_live(&mut self) -> Result<(), String> {
        let listing = timeout(LISTING, self.store.list("live/")).await.map_err(|_| silent(LISTING))?;
        let listing = listing.map_err(|error| error.to_string())?;
        self.replica.refresh_live(listing).map_err(|refused| refused.to_string())?;
        // A worker is not told of them, and this node may have become a manager.
        let tokens = timeout(LISTING, self.store.list(records::TOKENS)).await.map_err(|_| silent(LISTING))?;
        let tokens = tokens.map_err(|error| error.to_string())?;
        self.replica.refresh_tokens(tokens).map_err(|refused| refused.to_string())?;
        self.live_known = true;
        self.publish();
        Ok(())
    }

    /// Takes over what a watch brings, in bursts.
    async fn follow(&mut self, mut watch: Batches, target: Rev) -> WatchEnd {
        let mut deadline = Instant::now() + SILENCE;
        loop {
            let item = tokio::select! {
                biased;
                () = self.keeper.due() => {
                    self.keeper.begin(&self.replica);
                    continue;
                }
                complaint = self.caution.complaint() => {
                    self.blame(complaint).await;
                    // That may have taken a while, and what came meanwhile waits.
                    deadline = Instant::now() + SILENCE;
                    continue;
                }
                item = timeout_at(deadline, watch.next()) => item,
            };
            let Ok(mut item) = item else {
                return WatchEnd::Lost(silent(SILENCE));
            };
            let before = self.replica.world().rev;
            let mut taken = 0;
            let ended = loop {
                match item {
                    Some(Ok(batch)) => {
                        if let Err(end) = self.apply(batch) {
                            break Some(end);
                        }
                    }
                    Some(Err(end)) => break Some(end),
                    None => break Some(WatchEnd::Lost("the watch ended without a reason".to_owned())),
                }
                taken += 1;
                if taken == BURST {
                    break None;
                }
                match watch.next().now_or_never() {
                    Some(next) => item = next,
                    None => break None,
                }
            };
            if self.replica.world().rev != before {
                self.publish();
            }
            if let Some(end) = ended {
                return end;
            }
            if self.replica.world().rev >= target {
                self.caught_up = true;
                self.link = None;
            }
            self.report(self.caught_up);
            deadline = Instant::now() + SILENCE;
        }
    }

    fn apply(&mut self, batch: Batch) -> Result<(), WatchEnd> {
        // Revisions may come twice, but the store cannot call an older one its present.
        if batch.events.is_empty() && batch.rev < self.replica.world().rev {
            return Err(WatchEnd::WentBack(batch.rev));
        }
        self.replica.apply(batch);
        Ok(())
    }

    fn publish(&mut self) {
        let world = Arc::new(self.replica.world().clone());
        self.keeper.note(&world);
        self.caution.attempts.learned(&self.world.borrow(), &world);
        let before = self.world.send_replace(Arc::clone(&world));
        for (key, why) in world.poison.iter().filter(|(key, _)| !before.poison.contains_key(*key)) {
            tracing::warn!(%key, %why, "a record is set aside");
        }
        for key in before.poison.keys().filter(|key| !world.poison.contains_key(*key)) {
            tracing::info!(%key, "a record that was set aside is in force again, or gone");
        }
    }

    /// No plan can be made: finds out by which records, and sets those aside.
    async fn blame(&mut self, complaint: Arc<Complaint>) {
        let (mut replica, plans) = (self.replica.clone(), self.caution.plans());
        let found = move || {
            let Complaint { good, suspects, why } = &*complaint;
            let why = format!("no plan can be made with it: {why}");
            let barred = quarantine::isolate(&mut replica, good, suspects, &why, |world| plans(world));
            (replica, barred)
        };
        match spawn_blocking(found).await {
            Ok((replica, barred)) if !barred.is_empty() => {
                self.replica = replica;
                self.keeper.again();
                self.publish();
            }
            Ok(_) => tracing::error!("no plan can be made, and it is by no record that changed"),
            Err(error) => tracing::error!(%error, "no plan can be made, nor found out by which record"),
        }
    }

    fn report(&self, connected: bool) {
        let problems = [&self.link, &self.store_problem, &self.keeper.problem];
        let now = StoreHealth {
            connected,
            engine: self.engine.clone(),
            cluster: self.replica.cluster().unwrap_or_default().to_owned(),
            rev: self.replica.world().rev,
            problem: problems.into_iter().find_map(Clone::clone),
        };
        self.health.send_if_modified(|health| {
            let changed = *health != now;
            *health = now;
            changed
        });
    }
}

fn silent(after: Duration) -> String {
    format!("the store said nothing for {} s", after.as_secs())
}

/// Anything up to a wait, so that a thousand nodes do not return at the same moment.
fn jitter(wait: Duration) -> Duration {
    let mut random = [0; 4];
    // Without random numbers all nodes wait the whole time.
    if getrandom::fill(&mut random).is_err() {
        return wait;
    }
    wait.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
