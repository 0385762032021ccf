//! **Decision.** What happened, as people are told of it: in Docker's words, made of two worlds and what is different.
//!
//! Every node works out the same from the records, each for itself, when it learns of them; only whom it does not hear
//! is its own. What was there when it began is no news. What came and went between two of its looks is not told, and the time
//! is when it learned of it.

mod filter;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub use filter::{FILTERS, Filters};
use serde::{Deserialize, Serialize};
pub use told::{between, heard};

use crate::model::word_enum;

word_enum! {
    /// What something happened to.
    Kind, "event type" {
        /// A network.
        Network = "network",
        /// A service.
        Service = "service",
        /// A task.
        Task = "task",
        /// A node.
        Node = "node",
        /// A record, as it is in the store.
        Record = "record",
        /// The agent that tells.
        Agent = "agent",
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// To what.
    pub kind: Kind,
    /// What: `create`, `health_status: healthy`, …
    pub action: &'static str,
    /// To which.
    pub id: String,
    /// Its name and where it belongs; why; what is different.
    pub attributes: BTreeMap<&'static str, String>,
}

/// An event and when it was heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dated {
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// What happened.
    pub event: Event,
}

/// The last events. Each has a number, one more than the one before it.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    events: VecDeque<Arc<Dated>>,
    /// How many are forgotten: the number of the oldest that is not.
    forgotten: u64,
    /// When the youngest of these was.
    until: u64,
}

impl Recent {
    /// How many are remembered.
    pub const ROOM: usize = 1_000;

    /// Notes what happened at a moment, in nanoseconds since the Unix epoch.
    pub fn note(&mut self, at: u64, events: Vec<Event>) {
        // A nanosecond apart, so that a moment names one.
        let dated = (at..).zip(events).map(|(at, event)| Arc::new(Dated { at, event }));
        self.events.extend(dated);
        while self.events.len() > Self::ROOM {
            self.until = self.events.pop_front().map_or(self.until, |gone| gone.at);
            self.forgotten += 1;
        }
    }

    /// The number that the next one will have.
    pub fn next(&self) -> u64 {
        self.forgotten + self.events.len() as u64
    }

    /// The number of the oldest that is remembered.
    pub fn oldest(&self) -> u64 {
        self.forgotten
    }

    /// Whether some that were at this moment or later are forgotten.
    pub fn forgot(&self, since: u64) -> bool {
        self.forgotten > 0 && self.until >= since
    }

    /// Those from a number on, and how many of them are forgotten.
    pub fn from(&self, number: u64) -> (u64, impl Iterator<Item = &Arc<Dated>>) {
        let missed = self.forgotten.saturating_sub(number);
        let skip = usize::try_from(number.saturating_sub(self.forgotten)).unwrap_or(usize::MAX);
        (missed, self.events.iter().skip(skip))
    }
}
