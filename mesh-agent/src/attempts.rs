//! **Effect.** What this agent is about to do with the records, on disk while it does: the next one learns by what this one
//! broke. What follows from that is `mesh_core::quarantine`'s decision.
//!
//! A round that ends takes it away again. One that does not (a fault that ends the process, a watchdog that has waited for
//! long enough) leaves it there, and a part of the agent that breaks writes it down. Who is told to stop, or is killed
//! between two rounds, broke by nothing.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_core::kv::Rev;
use mesh_core::model::Snapshot;
use mesh_core::quarantine::{Attempt, Forms, news};

/// For so long after a start, or after something was new, what breaks is taken for its doing.
const FRESH: Duration = Duration::from_secs(10);

/// What is known of the attempts of this agent and of those before it. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// None: nothing is written down.
    path: Option<PathBuf>,
    /// What the agent before left, as long as this one has not done well for a while.
    found: Option<Attempt>,
    /// What was new lately.
    news: VecDeque<(Instant, Forms)>,
    rev: Rev,
    /// When this one began.
    begun: Option<Instant>,
    /// When its first round ended.
    well: Option<Instant>,
}

impl Attempts {
    /// Looks what the agent before left in a file.
    pub fn open(path: PathBuf) -> Self {
        let left = match std::fs::read(&path) {
            // It was about to write it.
            Ok(text) => Some(serde_json::from_slice(&text).unwrap_or_default()),
            Err(_) => None,
        };
        let found = Attempt::found(left);
        if let Some(found) = &found {
            tracing::warn!(failures = found.failures, why = found.why, "the agent before this one broke");
        }
        let begun = Some(Instant::now());
        Self(Arc::new(Mutex::new(Book { path: Some(path), found, begun, ..Book::default() })))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the agent before left.
    pub fn found(&self) -> Option<Attempt> {
        self.book().found.clone()
    }

    /// A newer world is about to be known to all parts. Of the first, nobody can say what is new in it.
    pub fn learned(&self, old: &Snapshot, new: &Snapshot) {
        let mut book = self.book();
        book.rev = new.changed;
        if old.rev == Rev(0) || old.changed == new.changed {
            return;
        }
        book.news.retain(|(at, _)| at.elapsed() < FRESH);
        book.news.push_back((Instant::now(), news(old, new)));
    }

    /// A round begins.
    pub fn begin(&self) {
        self.book().write("");
    }

    /// It has come to its end.
    pub fn end(&self) {
        let mut book = self.book();
        if book.well.get_or_insert_with(Instant::now).elapsed() >= FRESH {
            book.found = None;
        }
        if book.found.is_none() {
            book.remove();
        }
    }

    /// The agent ends, for a part of it broke.
    pub fn broke(&self, why: &str) {
        let mut book = self.book();
        book.news.retain(|(at, _)| at.elapsed() < FRESH);
        let is_new = book.begun.is_some_and(|begun| begun.elapsed() < FRESH);
        if is_new || book.found.is_some() || !book.news.is_empty() {
            book.write(why);
        }
    }

    /// The agent ends as it should.
    pub fn close(&self) {
        self.book().remove();
    }
}

impl Book {
    /// Whether it can be written changes nothing of what the agent does.
    fn write(&self, why: &str) {
        let Some(path) = &self.path else { return };
        let recent = self.news.iter().filter(|(at, _)| at.elapsed() < FRESH);
        let recent = recent.flat_map(|(_, forms)| forms.iter().map(|(key, rev)| (Arc::clone(key), *rev)));
        let attempt = Attempt::next(self.found.as_ref(), self.rev, &recent.collect(), why);
        if let Err(error) = std::fs::write(path, mesh_core::records::to_json(&attempt)) {
            tracing::debug!(%error, "cannot write down what is about to be done");
        }
    }

    fn remove(&self) {
        let Some(path) = &self.path else { return };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::debug!(%error, "cannot take back what was about to be done");
            }
            _ => {}
        }
    }
}

/// Takes a decision; `Err`: what it panicked with. A decision has nothing that it could leave half done.
pub fn guarded<T>(decide: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(decide)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
    })
}

/// What the last panic of this process said, and where.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Has panics remembered, beside what is done with them anyway.
pub fn remember_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string().replace('\n', " ");
        before(panic);
    }));
}

/// What the last one said; empty: there was none.
pub fn last_panic() -> String {
    LAST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use mesh_core::quarantine::{Begin, PATIENCE};

    use super::*;

    fn world(rev: u64) -> Snapshot {
        let mut world = Snapshot { rev: Rev(rev), changed: Rev(rev), ..Snapshot::default() };
        world.revs.insert("svc/web".into(), Rev(rev));
        world
    }

    #[test]
    fn what_was_new_when_agents_broke_is_known_to_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attempt");
        for failures in 0..=PATIENCE {
            let attempts = Attempts::open(path.clone());
            assert_eq!(attempts.found().map_or(0, |found| found.failures), failures);
            let begin = attempts.found().map_or(Begin::AsUsual, |found| found.begin());
            let without = Begin::Without([("svc/web".into(), Rev(7))].into());
            assert_eq!(begin, if failures < PATIENCE { Begin::AsUsual } else { without });
            attempts.learned(&Snapshot::default(), &world(6));
            if failures == 0 {
                attempts.learned(&world(6), &world(7));
            }
            // It is killed in its first round, or a part of it breaks afterwards.
            attempts.begin();
            if failures == 1 {
                attempts.end();
                attempts.broke("it panicked");
            }
        }
        assert_eq!(Attempts::open(path).found().unwrap().why, "it panicked");
    }

    #[test]
    fn who_ends_well_or_between_rounds_has_not_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attempt");
        let attempts = Attempts::open(path.clone());
        attempts.begin();
        attempts.end();
        assert!(Attempts::open(path.clone()).found().is_none(), "it was killed between two rounds");
        attempts.begin();
        attempts.close();
        assert!(Attempts::open(path.clone()).found().is_none());
        std::fs::write(&path, "").unwrap();
        assert_eq!(Attempts::open(path).found().unwrap().failures, 1, "it broke when it was about to write");
    }

    #[test]
    fn a_decision_that_panics_ends_nobody() {
        assert_eq!(guarded(|| 7), Ok(7));
        let why = guarded(|| panic!("no {}", "plan")).map(|(): ()| ()).unwrap_err();
        assert_eq!(why, "no plan");
    }
}
