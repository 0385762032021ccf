//! What the fuzzed targets are judged by: a second reading of packets, by the RFCs and by slices, and a mesh of some
//! nodes that carries frames from one to the other.

pub mod carry;
pub mod flow;
pub mod read;
pub mod world;

pub use carry::{End, Hop, Step, Way};
pub use flow::Flow;
pub use world::{Who, World};
