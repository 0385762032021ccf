//! **Fact.** Services on the wire: Docker's `Service`, with our extras left out where they are not used.

mod convert;
mod health;
mod program;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::replicas;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use health::HealthConfig;
pub use program::{ProgramConfig, ResolverConfig, UpdateConfig, UpdateStatus, parse_signal};

use super::{
    AffinityMode, Balancing, EndpointMode, Locality, Protocol, PublishMode, ReturnPath, Version, is_false,
};

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PortConfig {
    /// TCP or UDP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The port that tasks listen on.
    pub target_port: u16,
    /// The port of the nodes.
    pub published_port: u16,
    /// On all nodes, or where the tasks are.
    #[serde(default = "ingress")]
    pub publish_mode: PublishMode,
    /// Only on these addresses of a node.
    #[serde(rename = "HostIP", default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub host_ip: Vec<IpAddr>,
    /// Only on these nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Only for these clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub allow: Vec<IpNet>,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn ingress() -> PublishMode {
    PublishMode::Ingress
}

/// How a service is found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// `vip` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EndpointMode>,
    /// Ports of the nodes that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
}

/// A name of a port that tasks listen on, published or not: `_http._tcp.web` asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PortName {
    /// `http`
    pub name: String,
    /// The port that tasks listen on.
    pub target_port: u16,
    /// TCP or UDP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
}

/// A service's virtual address in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtualIp {
    /// The network.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// `10.0.0.5/16`
    #[serde(rename = "Addr")]
    pub addr: String,
}

/// How a service can be reached now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// What was asked for.
    pub spec: EndpointSpec,
    /// What is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortConfig>,
    /// One per network and family; none for dnsrr.
    #[serde(rename = "VirtualIPs", default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<VirtualIp>,
}

/// A place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkTarget {
    /// The network; in requests its name will do.
    pub target: String,
    /// Further names there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
}

/// Whether a client's flows stay together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Affinity {
    /// How.
    pub mode: AffinityMode,
    /// How long a client is remembered after its last flow (`10m`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

/// A wish for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// A DNS label.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// At least one.
    #[serde(default)]
    pub networks: Vec<NetworkTarget>,
    /// How it is found.
    #[serde(default)]
    pub endpoint_spec: EndpointSpec,
    /// `random` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,
    /// None unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// `spread` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// How long running flows of a leaving task may take to end; `30s` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
    /// How answers return from a task on another node than the one a flow came in by, for published ports; `tunnel`
    /// unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_path: Option<ReturnPath>,
    /// How long an established TCP flow, or a UDP flow, is remembered while nothing is sent, from `10s` to `120h`, rounded
    /// up to the next step that the programs know; left out or `default`: `6h` for TCP, `180s` for UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// How long the share of a task that has just come into the balance grows, at most `1h`; `0s`, which is not at all,
    /// unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// What tells whether a task can serve; left out: it serves while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Whether tasks that refuse connections, or do not answer them, are left out for a while; `true` unless said
    /// otherwise. Nodes on nftables do not find them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_health: Option<bool>,
    /// Whether the names of its tasks also lead to those that cannot serve yet, or not now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub publish_not_ready: bool,
    /// Names of its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_names: Vec<PortName>,
    /// What the mesh itself runs for it; left out: others start its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramConfig>,
}

/// How many tasks serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceStatus {
    /// Those that get new flows.
    pub running_tasks: u64,
    /// Those that the mesh is to run, or else those that are registered and have not ended.
    pub desired_tasks: u64,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// To send back with an update.
    pub version: Version,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it was last changed (RFC 3339).
    pub updated_at: String,
    /// What was asked for.
    pub spec: ServiceSpec,
    /// How it can be reached.
    pub endpoint: Endpoint,
    /// How many tasks serve.
    pub service_status: ServiceStatus,
    /// How far the last replacement of tasks is, where the mesh runs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// What it is to have and cannot be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Shortage>,
}

/// Something that a service cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Shortage {
    /// To whom: `web.2`, or a node.
    pub object: String,
    /// Why.
    pub reason: String,
    /// What to do.
    pub cure: String,
}

impl From<replicas::Shortage> for Shortage {
    fn from(shortage: replicas::Shortage) -> Self {
        let replicas::Shortage { object, reason, cure } = shortage;
        Self { object, reason, cure }
    }
}

/// Names published ports as Docker's `--publish-rm` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PortRef {
    /// Only the one that clients use as this; left out: all of the target port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_port: Option<u16>,
    /// The port that tasks listen on.
    pub target_port: u16,
    /// TCP or UDP.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// On all nodes, or where the tasks are.
    #[serde(default = "ingress")]
    pub publish_mode: PublishMode,
}

/// What to change of a service; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceUpdate {
    /// The version that this change is meant for; another one is a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Ports to publish.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish_add: Vec<PortConfig>,
    /// Ports to take back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish_rm: Vec<PortRef>,
    /// Networks to join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_add: Vec<NetworkTarget>,
    /// Networks to leave, by name or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_rm: Vec<String>,
    /// Labels to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label_add: BTreeMap<String, String>,
    /// Labels to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub label_rm: Vec<String>,
    /// New mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_mode: Option<EndpointMode>,
    /// New spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<Balancing>,
    /// New affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// New locality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<Locality>,
    /// New drain timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
    /// New return path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_path: Option<ReturnPath>,
    /// New idle timeout; `default` or `0`: none of its own any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// New slow start; `0`: none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<String>,
    /// What to change of the health check; what it does not name stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    /// Whether tasks that refuse connections, or do not answer them, are left out for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passive_health: Option<bool>,
    /// Whether the names of its tasks also lead to those that cannot serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_not_ready: Option<bool>,
    /// Names of ports to add; a name that there is gets the new port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_name_add: Vec<PortName>,
    /// Names of ports to remove, in either protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_name_rm: Vec<String>,
    /// What to change of what the mesh runs for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramConfig>,
}
