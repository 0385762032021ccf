//! **Decision.** When a command that ended is tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_core::model::{RunFailure, ServiceId, Snapshot};

/// The first pause; each further one is twice as long…
const FIRST: Duration = Duration::from_secs(1);
/// …up to this.
const LONGEST: Duration = Duration::from_secs(60);
/// What ran for so long did run.
const RAN: Duration = Duration::from_secs(30);

/// Services whose commands do not run here.
#[derive(Debug, Default)]
pub(super) struct Backoff(BTreeMap<ServiceId, Pause>);

#[derive(Debug)]
struct Pause {
    failure: RunFailure,
    until: Instant,
}

impl Backoff {
    /// A command ended that nobody asked to.
    pub(super) fn failed(&mut self, service: ServiceId, version: u64, lived: Duration, why: String) {
        let before = self.0.get(&service).filter(|pause| pause.failure.version == version && lived < RAN);
        let count = before.map_or(0, |pause| pause.failure.count).saturating_add(1);
        let until = Instant::now() + pause(count);
        if lived >= RAN {
            // Started anew soon, and no reason to think ill of its version.
            self.0.remove(&service);
            return;
        }
        self.0.insert(service, Pause { failure: RunFailure { version, count, message: why }, until });
    }

    /// Whether a version may be started.
    pub(super) fn is_over(&self, service: &ServiceId, version: u64) -> bool {
        let pause = self.0.get(service).filter(|pause| pause.failure.version == version);
        pause.is_none_or(|pause| Instant::now() >= pause.until)
    }

    /// Forgets other versions, and what has run since.
    pub(super) fn forget(&mut self, world: &Snapshot) {
        let now = Instant::now();
        self.0.retain(|id, pause| {
            let program = world.services.get(id).and_then(|service| service.program.as_ref());
            program.is_some_and(|program| program.version == pause.failure.version) && now < pause.until + RAN
        });
    }

    /// What others are told.
    pub(super) fn failures(&self) -> BTreeMap<ServiceId, RunFailure> {
        self.0.iter().map(|(id, pause)| (id.clone(), pause.failure.clone())).collect()
    }
}

/// After so many failures in a row.
fn pause(count: u32) -> Duration {
    FIRST.saturating_mul(1 << count.saturating_sub(1).min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let pauses: Vec<_> = [1, 2, 3, 7, 1000].map(|count| pause(count).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 60, 60]);
        let (service, mut backoff) = (ServiceId::new("s"), Backoff::default());
        assert!(backoff.is_over(&service, 1));
        for count in 1..=2 {
            backoff.failed(service.clone(), 1, Duration::ZERO, "it ended".to_owned());
            assert_eq!(backoff.failures()[&service].count, count);
        }
        assert!(!backoff.is_over(&service, 1) && backoff.is_over(&service, 2));
        backoff.failed(service.clone(), 1, RAN, "it ended".to_owned());
        assert!(backoff.is_over(&service, 1) && backoff.failures().is_empty());
    }
}
