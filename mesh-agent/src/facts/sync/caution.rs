//! **Effect.** What this node's copy leaves out so that the agent does not break by it: see `mesh_core::quarantine`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::Snapshot;
use mesh_core::quarantine::{self, Attempt, Begin, Forms};
use mesh_core::replica::Replica;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::cache;
use crate::attempts::Attempts;
use crate::status::StoreHealth;

/// For so long nothing newer is tried than the copy that was good.
const HOLD: Duration = Duration::from_mins(10);
/// How long the agent lives with a copy until that is good.
const RIPE: Duration = Duration::from_mins(1);

/// That no plan can be made.
#[derive(Debug)]
pub struct Complaint {
    /// The last world of which one could be made.
    pub good: Arc<Snapshot>,
    /// What changed since.
    pub suspects: Forms,
    /// Why none can be made now.
    pub why: String,
}

/// Whether a plan can be made of a world.
pub type Plans = Arc<dyn Fn(&Snapshot) -> bool + Send + Sync>;

/// What is known of what the agent breaks by, and of what it would.
#[derive(Clone)]
pub struct Caution {
    pub(super) attempts: Attempts,
    complaints: watch::Receiver<Option<Arc<Complaint>>>,
    plans: Plans,
}

impl Default for Caution {
    fn default() -> Self {
        Self::new(Attempts::default(), watch::channel(None).1, Arc::new(|_| true))
    }
}

impl Caution {
    /// Puts the parts together.
    pub fn new(
        attempts: Attempts,
        complaints: watch::Receiver<Option<Arc<Complaint>>>,
        plans: Plans,
    ) -> Self {
        Self { attempts, complaints, plans }
    }

    pub(super) fn plans(&self) -> Plans {
        Arc::clone(&self.plans)
    }

    /// The next complaint, whenever that comes.
    pub(super) async fn complaint(&mut self) -> Arc<Complaint> {
        loop {
            if self.complaints.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(complaint) = &*self.complaints.borrow_and_update() {
                return Arc::clone(complaint);
            }
        }
    }

    fn found(&self) -> Option<(Attempt, Begin)> {
        let found = self.attempts.found()?;
        let begin = found.begin();
        Some((found, begin))
    }

    /// Leaves out what agents broke by before this one.
    pub(super) fn leave_out(&self, replica: &mut Replica, cache: Option<&Path>) {
        let Some((found, Begin::Without(forms))) = self.found() else { return };
        let good = cache.and_then(known_good).unwrap_or_default();
        let why = found.reason();
        for (key, rev) in &forms {
            replica.bar(key, *rev, &why, quarantine::former(&good, key));
        }
    }

    /// Whether nothing new is tried for now.
    pub(super) fn holds(&self) -> bool {
        matches!(self.found(), Some((_, Begin::Held)))
    }

    /// Makes known what was good for long, and nothing else for a while.
    pub(super) async fn hold(
        &self,
        cache: Option<&Path>,
        world: &watch::Sender<Arc<Snapshot>>,
        health: &watch::Sender<StoreHealth>,
    ) {
        let Some((found, _)) = self.found() else { return };
        let good = cache.and_then(known_good);
        let kept = match &good {
            Some(good) => format!("this node goes on with its copy of revision {}", good.changed),
            None => "the kernel stays as it is".to_owned(),
        };
        let why = if found.why.is_empty() { String::new() } else { format!(" ({})", found.why) };
        let problem = format!(
            "the agent broke {} times in a row with the records of revision {}{why}: {kept}, and tries again in {} minutes, \
             or when it is started anew",
            found.failures,
            found.rev,
            HOLD.as_secs() / 60
        );
        tracing::error!(%problem);
        if let Some(good) = good {
            world.send_replace(Arc::new(good));
        }
        health.send_modify(|health| {
            health.connected = false;
            health.problem = Some(problem);
        });
        tokio::time::sleep(HOLD).await;
    }
}

fn known_good(cache: &Path) -> Option<Snapshot> {
    let (good, _) = cache::load(&cache::good(cache));
    Some(Replica::from_cache(good?).world().clone())
}

/// Keeps a copy of the records that the agent has lived with for a while, beside those that are newer.
pub async fn ripen(cache: PathBuf, stop: CancellationToken) {
    let mut since_before = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RIPE) => {}
        }
        let path = cache.clone();
        let ripened = spawn_blocking(move || cache::ripen(&path, since_before)).await;
        since_before = matches!(ripened, Ok(Ok(())));
        if let Ok(Err(error)) = ripened {
            tracing::debug!(%error, "cannot keep a copy of the records that was good");
        }
    }
}
