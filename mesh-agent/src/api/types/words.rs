//! **Fact.** Words that stand for the model's choices. A choice that the model gains does not compile until it
//! has a word here.

use mesh_core::model;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $model:path { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
        pub enum $name { $(#[serde(rename = $word)] #[value(name = $word)] $variant),+ }

        impl $name {
            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl From<$model> for $name {
            fn from(value: $model) -> Self {
                use $model as Model;
                match value { $(Model::$variant => Self::$variant),+ }
            }
        }
        impl From<$name> for $model {
            fn from(value: $name) -> Self {
                use $model as Model;
                match value { $($name::$variant => Model::$variant),+ }
            }
        }
    )+};
}

words! {
    /// What a service's name resolves to.
    EndpointMode = model::EndpointMode { Vip = "vip", Dnsrr = "dnsrr" }
    /// A transport protocol.
    Protocol = model::Protocol { Tcp = "tcp", Udp = "udp" }
    /// Where a published port is open.
    PublishMode = model::PublishMode { Ingress = "ingress", Host = "host" }
    /// How a new flow finds its task.
    Balancing = model::Balancing { Random = "random", Maglev = "maglev", LeastConn = "least-conn" }
    /// Which tasks are preferred.
    Locality = model::Locality { Spread = "spread", PreferLocal = "prefer-local", LocalOnly = "local-only" }
    /// How answers return from a task on another node.
    ReturnPath = model::ReturnPath { Tunnel = "tunnel", Dsr = "dsr", Snat = "snat" }
    /// What the operator wants of a node.
    Availability = model::Availability { Active = "active", Pause = "pause", Drain = "drain" }
    /// Whether a task goes before the one that replaces it comes.
    UpdateOrder = model::UpdateOrder { StopFirst = "stop-first", StartFirst = "start-first" }
    /// What to do when a new task fails.
    FailureAction = model::FailureAction { Pause = "pause", Rollback = "rollback", Continue = "continue" }
    /// What is known of a task's fitness to serve.
    Health = model::Health { None = "none", Starting = "starting", Healthy = "healthy", Unhealthy = "unhealthy" }
    /// How far a task is.
    TaskState = model::TaskState {
        New = "new", Pending = "pending", Assigned = "assigned", Accepted = "accepted", Preparing = "preparing",
        Starting = "starting", Running = "running", Complete = "complete", Shutdown = "shutdown",
        Failed = "failed", Rejected = "rejected", Orphaned = "orphaned", Remove = "remove",
    }
}

/// Whether a client's flows stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum AffinityMode {
    /// Each flow for itself.
    #[serde(rename = "none")]
    None,
    /// All flows of a client's address go to one task.
    #[serde(rename = "client-ip")]
    ClientIp,
}
