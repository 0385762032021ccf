//! **Fact.** The nouns of the mesh: networks, services, tasks and nodes, and the snapshot that holds them all.
//!
//! Values are parsed once, at the door, into types that cannot hold nonsense ([`Name`], [`Block`], [`Vni`]).

mod block;
mod few;
mod health;
mod identity;
mod ids;
mod network;
mod node;
mod program;
mod service;
mod shared;
mod snapshot;
mod sound;
mod task;
mod tasks;
mod turnout;
mod verification;

pub use block::{Block, MAX_V4_PREFIX, MAX_V6_PREFIX, MIN_V4_PREFIX, MIN_V6_PREFIX};
pub use few::Few;
pub use health::{HealthCheck, Probe};
pub use identity::{
    Certificate, Denied, Identity, MemberRotation, Role, Rotation, StoredToken, Tokens, TrustStep,
};
pub use ids::{Id, InvalidName, Name, NetworkId, NodeId, ServiceId, TaskId, fnv64};
pub use network::{FIRST_VNI, LAST_VNI, Network, Vni};
pub use node::{Availability, Down, Listener, Live, Node, NodeSpec};
pub use program::{
    FailureAction, Program, Resolver, Rollout, RolloutState, Run, RunFailure, UpdateConfig, UpdateOrder,
};
pub(crate) use service::word_enum;
pub use service::{
    Affinity, Attachment, Balancing, Discovery, EndpointMode, Locality, PortConflict, PortName, Protocol,
    PublishMode, PublishedPort, ReturnPath, Service, Vip,
};
pub use shared::SharedMap;
pub use snapshot::Snapshot;
pub use sound::MOST_REPLICAS;
pub(crate) use sound::{is_usable, moments};
pub use task::{Ejected, Health, Origin, Sickness, Task, TaskAddress, TaskSpec, TaskState};
pub use tasks::{Group, Tasks};
pub use turnout::Turnout;
pub use verification::{Verification, Verified};

/// Milliseconds since the Unix epoch, by the clock of whoever wrote it. To be shown to people; it decides nothing but
/// how far a slow start is, where a wrong clock costs no more than a wrong share for a while.
pub type Timestamp = u64;
