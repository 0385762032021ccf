//! **Fact.** Which services' tasks clients were sent to by name themselves, past any VIP, and when last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use mesh_core::model::ServiceId;

/// So old may what is written be: a clock is read for each question, and a word is not written.
const FRESH: Duration = Duration::from_millis(100);

/// What was told by all of a node's name servers. A clone is another handle to the same.
#[derive(Debug, Clone)]
pub struct Referrals {
    last: Arc<RwLock<BTreeMap<ServiceId, Instant>>>,
    /// How long answers hold.
    ttl: Duration,
}

impl Referrals {
    /// None yet, of answers that hold for so long.
    pub fn new(ttl: Duration) -> Self {
        Self { last: Arc::default(), ttl }
    }

    /// A client was told the addresses of a service's tasks now.
    pub(super) fn note(&self, service: &ServiceId) {
        let now = Instant::now();
        let last = self.last.read().unwrap_or_else(PoisonError::into_inner).get(service).copied();
        if last.is_none_or(|last| now - last > FRESH) {
            self.last.write().unwrap_or_else(PoisonError::into_inner).insert(service.clone(), now);
        }
    }

    /// Those of which some answer still holds; others are forgotten.
    pub fn valid(&self) -> BTreeSet<ServiceId> {
        let mut all = self.last.write().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|_, last| now.duration_since(*last) <= self.ttl + FRESH);
        all.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_known_for_as_long_as_it_holds() {
        let web = ServiceId::new("web");
        let (long, short) = (Referrals::new(Duration::from_secs(60)), Referrals::new(Duration::ZERO));
        for referrals in [&long, &short] {
            referrals.clone().note(&web);
            assert_eq!(referrals.valid(), [web.clone()].into());
        }
        std::thread::sleep(FRESH * 2);
        assert_eq!((long.valid().len(), short.valid().len()), (1, 0));
    }
}
