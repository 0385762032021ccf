//! **Fact.** What goes over the wire, in Docker's words and order.
//!
//! These are not the model's types: the model may change with every release, the wire may not. Every
//! conversion takes its source apart field by field, so that a new field of the model has to be placed here.

mod cluster;
mod counters;
mod duration;
mod event;
mod flow_event;
mod in_kernel;
mod log;
mod network;
mod node;
mod node_status;
mod service;
mod status;
mod task;
mod task_health;
mod top;
mod verification;
mod watch;
mod web;
mod words;

use mesh_core::model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use cluster::{
    Cluster, ClusterAuthority, ClusterBackup, ClusterJoin, ClusterLeave, ClusterMember, ClusterNode,
    ClusterRotation, ClusterToken, ClusterTokenRequest, alarm_in_words,
};
pub use counters::{AllCounters, BackendCounters, Counters, FlowTable, ServiceCounters};
pub use duration::{format_duration, parse_duration};
pub use event::{EventActor, EventMessage, format_moment, parse_moment};
pub use flow_event::FlowEvent;
pub use in_kernel::{InKernel, LiveFlow};
pub use log::{LogLine, LogStream};
pub use network::{Ipam, Network, NetworkPeer, NetworkService, NetworkServiceTask, NetworkSpec, Subnet};
pub use node::{Node, NodeDescription, NodeSpec, NodeUpdate};
pub use node_status::NodeStatus;
pub use service::{
    Affinity, Endpoint, EndpointSpec, HealthConfig, NetworkTarget, PortConfig, PortName, PortRef,
    ProgramConfig, ResolverConfig, Service, ServiceSpec, ServiceStatus, ServiceUpdate, Shortage,
    UpdateConfig, UpdateStatus, VirtualIp, parse_signal,
};
pub use status::{
    Excluded, ExplainRequest, Explanation, Feature, NodeHealth, Plane, Problem, Share, Status, StoreView,
};
pub use task::{Origin, Task, TaskAttachment, TaskNetwork, TaskSpec, TaskStatus, TaskUpdate};
pub use task_health::{HealthcheckResult, TaskHealth, TaskLife};
pub use top::{Top, TopCounted, TopCounts};
pub use verification::{NodeVerification, Verification, VerifyRequest};
pub use watch::{WatchAction, WatchEvent, WatchKind};
pub use web::{
    Condition, MOST_TASKS, Sum, WebNode, WebPort, WebRates, WebSelf, WebService, WebState, WebTask, sums,
};
pub use words::{
    AffinityMode, Availability, Balancing, EndpointMode, FailureAction, Health, Locality, Protocol,
    PublishMode, ReturnPath, TaskState, UpdateOrder,
};

/// How often a record was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Version {
    /// Grows with each change.
    pub index: u64,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Changed {
    /// What was made, changed or removed.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// The revision that made the change. A node whose `AppliedRevision` has reached it is done with it.
    pub revision: u64,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// For people.
    pub message: String,
    /// For programs.
    pub kind: ErrorKind,
}

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It names something that is not there (404).
    NotFound,
    /// Something else is in the way (409).
    Conflict,
    /// The request makes no sense by itself (400).
    Invalid,
    /// Nothing is left to give out (409).
    Exhausted,
    /// The store cannot be asked now (503).
    Unavailable,
}

/// A moment as RFC 3339 has it.
pub fn rfc3339(at: Timestamp) -> String {
    let moment = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.unwrap_or_default().to_string()
}

/// Whether a field can be left out.
fn is_false(value: &bool) -> bool {
    !value
}
