//! **Effect.** Counts instead of log lines: a task that asks for a wrong name a thousand times a second must not
//! fill the node's disk.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mesh_core::dns::reply::Outcome;

/// What came of the questions, all tasks together, since the agent's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsCounters {
    /// Answered with addresses of ours.
    pub addresses: u64,
    /// Answered with a name of ours (PTR).
    pub names: u64,
    /// Answered with ports of tasks (SRV).
    pub targets: u64,
    /// Ours, without such a record.
    pub no_data: u64,
    /// Ours to deny.
    pub nx_domain: u64,
    /// Answered by an upstream.
    pub forwarded: u64,
    /// Of those, answered from what an upstream had said before.
    pub cached: u64,
    /// Not answered by any upstream in time.
    pub failed: u64,
    /// Refused: too many at once, or not a question that we take.
    pub refused: u64,
    /// Not readable as DNS.
    pub malformed: u64,
    /// Of all answers, those cut to fit into UDP.
    pub truncated: u64,
}

/// The same while it grows.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; 11]);

/// What to count, in the order of [`DnsCounters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Addresses,
    Names,
    Targets,
    NoData,
    NxDomain,
    Forwarded,
    Cached,
    Failed,
    Refused,
    Malformed,
    Truncated,
}

impl Counts {
    pub(super) fn add(&self, what: Count) {
        self.0[what as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> DnsCounters {
        let of = |what: Count| self.0[what as usize].load(Relaxed);
        DnsCounters {
            addresses: of(Count::Addresses),
            names: of(Count::Names),
            targets: of(Count::Targets),
            no_data: of(Count::NoData),
            nx_domain: of(Count::NxDomain),
            forwarded: of(Count::Forwarded),
            cached: of(Count::Cached),
            failed: of(Count::Failed),
            refused: of(Count::Refused),
            malformed: of(Count::Malformed),
            truncated: of(Count::Truncated),
        }
    }
}

impl From<Outcome> for Count {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Addresses => Self::Addresses,
            Outcome::Names => Self::Names,
            Outcome::Targets => Self::Targets,
            Outcome::NoData => Self::NoData,
            Outcome::NxDomain => Self::NxDomain,
            Outcome::Refused => Self::Refused,
            Outcome::Malformed => Self::Malformed,
        }
    }
}
