//! **Fact.** What an agent tells of the mesh at one moment, as far as it is shown.

use std::collections::BTreeMap;
use std::time::Duration;

/// The mesh as one node sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// The node that tells.
    pub teller: Teller,
    /// In the order of their names.
    pub services: Vec<Service>,
    /// By service and number.
    pub tasks: Vec<Task>,
    /// In the order of their names.
    pub nodes: Vec<Node>,
    /// What the node's data plane counted; none: it counts nothing, or could not be asked.
    pub counted: Option<Counted>,
}

/// The node that tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Teller {
    /// Its name; empty while it is not in the mesh.
    pub name: String,
    /// Its agent's version.
    pub version: String,
    /// Whether its data plane counts.
    pub counts: bool,
    /// Whether it is in step with the store.
    pub store_connected: bool,
    /// What its plan could not do, in words.
    pub problems: Vec<String>,
    /// How many objects of its kernel are not as planned.
    pub failing: usize,
    /// How many more tasks there are than it tells of.
    pub left_out: usize,
}

/// What a node sent to tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// When, by a clock of that machine which is never set.
    pub at: Duration,
    /// By the id of the task.
    pub tasks: BTreeMap<String, Counts>,
}

/// What a node sent to a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// New flows, since the task came.
    pub flows: u64,
    /// Packets since then.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that there are.
    pub active: u64,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Never changes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How many of its tasks get new flows.
    pub running: usize,
    /// How many there should be.
    pub desired: usize,
    /// How far a replacement of its tasks is; empty: there is none.
    pub update: String,
    /// Ports of the nodes that lead to it: `8080->80/tcp`.
    pub ports: Vec<String>,
    /// Its virtual addresses.
    pub addresses: Vec<String>,
    /// Names of its networks.
    pub networks: Vec<String>,
}

/// A task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// Never changes.
    pub id: String,
    /// `web.1`, or its own.
    pub name: String,
    /// The id of its service; empty: it serves nothing.
    pub service: String,
    /// The id of its node.
    pub node: String,
    /// All of it in one word.
    pub condition: Condition,
    /// Why it gets no new flows.
    pub reason: String,
    /// What its health check says; empty: it has none.
    pub health: String,
    /// Share of new flows.
    pub weight: u64,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// How many connections it still has, where it gets no new ones.
    pub left: Option<u64>,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Never changes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where other nodes reach it.
    pub address: String,
    /// How it fares: `ready`.
    pub state: String,
    /// Why, unless it is ready.
    pub message: String,
    /// What the operator wants of it: `active`, `pause`, `drain`.
    pub availability: String,
    /// `manager`, `worker`, or empty.
    pub role: String,
    /// Whether it is the one that tells.
    pub this: bool,
    /// How many things are wrong on it.
    pub problems: u64,
}

/// A task in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Its node does not answer.
    Unreachable,
    /// It ended with an error, or its node lost it.
    Failed,
    /// Its health check fails.
    Unhealthy,
    /// It is left out for what it makes of connections.
    Ejected,
    /// It gets no new flows, and those that it has may end.
    Draining,
    /// It does not run, or its health check has not succeeded, yet.
    Starting,
    /// It runs, and gets no flows.
    #[default]
    Idle,
    /// It runs and serves nothing.
    Running,
    /// It gets new flows.
    Serving,
    /// It ended.
    Ended,
}

/// How good that is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mood {
    /// As it should be.
    #[default]
    Good,
    /// Nothing that counts any more.
    Past,
    /// It passes, or somebody wants it so.
    Warn,
    /// Something is wrong.
    Bad,
}

impl Condition {
    /// All of them, the worst first.
    pub const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::Failed,
        Self::Unhealthy,
        Self::Ejected,
        Self::Draining,
        Self::Starting,
        Self::Idle,
        Self::Running,
        Self::Serving,
        Self::Ended,
    ];

    /// In the words of the web page.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "left out",
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::Idle => "no flows",
            Self::Running => "running",
            Self::Serving => "serving",
            Self::Ended => "ended",
        }
    }

    /// How good it is.
    pub fn mood(self) -> Mood {
        match self {
            Self::Unreachable | Self::Failed | Self::Unhealthy => Mood::Bad,
            Self::Ejected | Self::Draining | Self::Starting | Self::Idle => Mood::Warn,
            Self::Running | Self::Serving => Mood::Good,
            Self::Ended => Mood::Past,
        }
    }
}
