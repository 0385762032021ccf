//! **Decision.** When leases end, by a clock that stands still while nobody could have kept them alive.
//!
//! A process that was stopped for a minute must not wake up and take every healthy lease for expired: nobody
//! could reach it in that time. (etcd does just that; so a lease there can never decide anything.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mesh_core::kv::LeaseId;

/// How often time is looked at; an interval that is much longer was a pause of ours.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// Leases by the time they end.
#[derive(Debug)]
pub(super) struct Leases {
    by_id: BTreeMap<LeaseId, (Duration, Duration)>,
    by_end: BTreeSet<(Duration, LeaseId)>,
    /// How long leases have been able to age.
    aged: Duration,
    looked: Instant,
}

impl Leases {
    /// All of them begin anew.
    pub(super) fn new(all: impl IntoIterator<Item = (LeaseId, u64)>, now: Instant) -> Self {
        let mut leases =
            Self { by_id: BTreeMap::new(), by_end: BTreeSet::new(), aged: Duration::ZERO, looked: now };
        for (lease, seconds) in all {
            leases.grant(lease, seconds);
        }
        leases
    }

    /// Lets time pass.
    pub(super) fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked);
        self.aged += if passed > TICK * 4 { TICK } else { passed };
        self.looked = now;
    }

    pub(super) fn grant(&mut self, lease: LeaseId, seconds: u64) {
        let ttl = Duration::from_secs(seconds);
        self.by_id.insert(lease, (ttl, self.aged + ttl));
        self.by_end.insert((self.aged + ttl, lease));
    }

    /// Whether there is such a lease, whose time now begins anew.
    pub(super) fn keep(&mut self, lease: LeaseId) -> bool {
        let Some((ttl, end)) = self.by_id.get_mut(&lease) else {
            return false;
        };
        self.by_end.remove(&(*end, lease));
        *end = self.aged + *ttl;
        self.by_end.insert((*end, lease));
        true
    }

    /// Those whose time is up; they stay until they are forgotten.
    pub(super) fn expired(&self) -> Vec<LeaseId> {
        self.by_end.iter().take_while(|(end, _)| *end <= self.aged).map(|(_, lease)| *lease).collect()
    }

    pub(super) fn forget(&mut self, lease: LeaseId) {
        if let Some((_, end)) = self.by_id.remove(&lease) {
            self.by_end.remove(&(end, lease));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_unless_it_is_kept() {
        let start = Instant::now();
        let mut leases = Leases::new([(LeaseId(1), 1), (LeaseId(2), 1)], start);
        for tick in 1..=5 {
            leases.age(start + TICK * tick);
            assert!(leases.keep(LeaseId(2)));
        }
        assert_eq!(leases.expired(), [LeaseId(1)]);
        leases.forget(LeaseId(1));
        assert!(leases.expired().is_empty() && !leases.keep(LeaseId(1)));
    }

    #[test]
    fn a_pause_of_the_store_ends_no_lease() {
        let start = Instant::now();
        let mut leases = Leases::new([(LeaseId(1), 2)], start);
        leases.age(start + Duration::from_secs(60));
        assert!(leases.expired().is_empty());
        for tick in 1..=7 {
            leases.age(start + Duration::from_secs(60) + TICK * tick);
        }
        assert_eq!(leases.expired(), [LeaseId(1)]);
    }
}
