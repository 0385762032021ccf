//! **Fact.** What happened, in milliseconds from the beginning of the run.

use std::collections::BTreeSet;

/// Milliseconds from the beginning of the run.
pub type Millis = u64;

/// The number of a node, from 0.
pub type Place = usize;

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When its connection was begun.
    pub opened: Millis,
    /// When it was sent: as its connection was begun, or later.
    pub at: Millis,
    /// How long it took.
    pub took: Millis,
    /// How long the connection took to be there; nothing for one that was there.
    pub connect: Option<Millis>,
    /// The node that leads it to a task: whose port it goes to, or on which the client's task runs.
    pub entry: Place,
    /// Whether the client is a task of that node, and not somebody outside.
    pub inside: bool,
    /// The number of the service.
    pub service: usize,
    /// For connections that were used before: the node of the task that answered.
    pub kept: Option<Kept>,
    /// The node of the task that answered, or why none did.
    pub outcome: Result<Place, Failed>,
}

/// A connection that was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The node of the task at its other end.
    pub by: Place,
}

impl Request {
    /// When it ended.
    pub fn ended(&self) -> Millis {
        self.at + self.took
    }
}

/// Why a request had no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Nothing came in time: packets get lost.
    Silence,
    /// Somebody said no: a reset, a refusal, an answer that breaks off.
    Refused(String),
}

/// A time in which packets were lost between machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Before the first could be lost.
    pub begin: Millis,
    /// After the last could be lost.
    pub end: Millis,
    /// Which.
    pub severed: Severed,
}

/// Which packets are lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Severed {
    /// All from and to a node.
    Node(Place),
    /// All between these nodes and the other nodes.
    Split(BTreeSet<Place>),
    /// All from one node to another.
    OneWay(Place, Place),
    /// Some, between all.
    Loss,
}

impl Severed {
    /// Whether nothing that needs an answer works between two nodes.
    pub fn between(&self, a: Place, b: Place) -> bool {
        match self {
            Self::Node(node) => a != b && (a == *node || b == *node),
            Self::Split(left) => left.contains(&a) != left.contains(&b),
            Self::OneWay(from, to) => (a, b) == (*from, *to) || (b, a) == (*from, *to),
            Self::Loss => false,
        }
    }

    /// Whether nobody outside reaches a node.
    pub fn from_outside(&self, node: Place) -> bool {
        *self == Self::Node(node)
    }

    /// Whether a node reaches none of the other ones.
    pub fn isolates(&self, node: Place, nodes: usize) -> bool {
        (0..nodes).filter(|other| *other != node).all(|other| self.between(node, other))
    }
}
