//! Tasks: what serves. One address per network, one state, one owner (its node).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::service::word_enum;
use super::{Availability, Few, Name, NetworkId, NodeId, ServiceId, TaskId, Timestamp};

/// Swarm's task states, in their order; a task only ever moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Recorded.
    New,
    /// Waits for resources.
    Pending,
    /// Has a node.
    Assigned,
    /// The node took it.
    Accepted,
    /// Its network is being made.
    Preparing,
    /// Its program is being started.
    Starting,
    /// Runs: the only state that gets traffic.
    Running,
    /// Ended with success.
    Complete,
    /// Was told to stop.
    Shutdown,
    /// Ended with an error.
    Failed,
    /// The node could not take it.
    Rejected,
    /// Its node was gone for too long.
    Orphaned,
    /// To be forgotten.
    Remove,
}

impl TaskState {
    /// Moves forward, never back: the later of both.
    pub fn advance(self, to: Self) -> Self {
        self.max(to)
    }

    /// Nothing runs any more.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

/// As Docker prints it: `Running`.
impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}"))
    }
}

/// What is known of a task's fitness to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Nothing checks it: it serves while it runs.
    #[default]
    None,
    /// Not ready yet.
    Starting,
    /// Ready.
    Healthy,
    /// Out of the balance until it is healthy again.
    Unhealthy,
}

word_enum! {
    /// What a task makes of connections, if it cannot serve.
    Sickness, "sickness" {
        /// It turns them down.
        Refuses = "refuses",
        /// It does not answer them.
        Silent = "silent",
        /// It says that nobody takes datagrams there.
        Unreachable = "unreachable",
    }
}

impl Sickness {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Refuses => "refuses connections",
            Self::Silent => "does not answer connections",
            Self::Unreachable => "refuses datagrams",
        }
    }
}

/// That a task was found sick by what it makes of connections: see [`crate::passive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejected {
    /// When. It tells only who was found sick before whom.
    pub since: Timestamp,
    /// How often in a row it was by now: each time it is left out for longer.
    pub row: u32,
    /// How it showed.
    pub why: Sickness,
}

/// A task's (or a node's own) addresses in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskAddress {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6, where the network has it.
    pub v6: Option<Ipv6Addr>,
}

impl TaskAddress {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(IpAddr::V4(self.v4)).chain(self.v6.map(IpAddr::V6))
    }
}

/// Where on its node a task lives. Means something on that node only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Origin {
    /// A process in a network namespace of its own. The start time (clock ticks since boot, field 22 of
    /// proc(5) stat) tells it from a later process with the same number.
    Process {
        /// The process.
        pid: u32,
        /// When it started.
        start: u64,
        /// Whether the mesh started it, and so may stop it.
        supervised: bool,
    },
    /// A network namespace bound to a path.
    Netns {
        /// The path.
        path: PathBuf,
    },
}

impl Origin {
    /// Whether both are one place, whoever started what lives there.
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Process { pid, start, supervised: _ },
                Self::Process { pid: p, start: s, supervised: _ },
            ) => (pid, start) == (p, s),
            (Self::Netns { path }, Self::Netns { path: other }) => path == other,
            (Self::Process { .. }, Self::Netns { .. }) | (Self::Netns { .. }, Self::Process { .. }) => false,
        }
    }
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Never changes.
    pub id: TaskId,
    /// What it serves; none for a task of its own, which is found by `name` only.
    pub service: Option<ServiceId>,
    /// From 1; unique among the service's tasks; 0 without a service.
    pub slot: u32,
    /// The name of a task without a service; unique among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where it runs: the only writer of this record.
    pub node: NodeId,
    /// The node's epoch when this was written.
    pub epoch: u64,
    /// Addresses, by network.
    pub addresses: Few<NetworkId, TaskAddress>,
    /// How far it is.
    pub state: TaskState,
    /// Whether it can serve.
    pub health: Health,
    /// Whether its service's check says so, and not whoever registered it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checked: bool,
    /// It is sick by what it makes of connections, and left out for now where [others serve](super::Turnout).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// Share of new flows in relation to the service's other tasks; 0: none.
    pub weight: u16,
    /// Gets no new flows any more.
    pub draining: bool,
    /// What last happened, for people.
    pub message: String,
    /// Where it lives on its node.
    pub origin: Origin,
    /// Name servers of its own, asked from its own namespace for what is not the mesh's; none: the node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    /// Whether its sockets are left alone, so that each of its packets is balanced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub packets_only: bool,
    /// Which version of its service's program it runs; none: someone else started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u64>,
    /// When it last became [ready](Self::ready); 0: before that was written down.
    #[serde(default)]
    pub ready_since: Timestamp,
    /// When it was registered.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
}

impl Task {
    /// Whether it may get new flows, as far as it itself goes.
    pub fn ready(&self) -> bool {
        self.would_be_ready() && matches!(self.health, Health::None | Health::Healthy)
    }

    /// Whether nothing but its health keeps it from that.
    pub fn would_be_ready(&self) -> bool {
        self.state == TaskState::Running && !self.draining && self.weight > 0
    }
}

/// What the operator says of a task. Only the API writes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Whether it takes part; only `active` and `drain` have a meaning.
    pub availability: Availability,
    /// When it last ceased to be drained; 0: it never was.
    #[serde(default)]
    pub undrained: Timestamp,
}

impl Default for TaskSpec {
    fn default() -> Self {
        Self { availability: Availability::Active, undrained: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState::*;

    #[test]
    fn states_never_go_back() {
        assert_eq!(Running.advance(Starting), Running);
        assert_eq!(Running.advance(Failed), Failed);
        assert_eq!(Failed.advance(Running), Failed);
        assert!(Complete.is_terminal() && !Running.is_terminal());
    }
}
