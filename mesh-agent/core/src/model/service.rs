//! Services: a name, a VIP per network, published ports, and how flows are spread.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{HealthCheck, Name, NetworkId, Program, ServiceId, Timestamp};

macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// The word that stands for it in flags and JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!(concat!("invalid ", $what, " value ({}): must be one of {}"), text,
                        [$(concat!("'", $word, "'")),+].join(", "))),
                }
            }
        }
    };
}
pub(crate) use word_enum;

word_enum! {
    /// What a service's name resolves to.
    EndpointMode, "endpoint mode" {
        /// One stable virtual address.
        Vip = "vip",
        /// The addresses of all tasks, shuffled.
        Dnsrr = "dnsrr",
    }
}

word_enum! {
    /// A transport protocol that is balanced.
    Protocol, "protocol" {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

word_enum! {
    /// Where a published port is open.
    PublishMode, "publish mode" {
        /// On every node, balanced over all tasks.
        Ingress = "ingress",
        /// On the nodes that run a task, to that task.
        Host = "host",
    }
}

word_enum! {
    /// How a new flow finds its backend.
    Balancing, "balancing" {
        /// Each flow at random, by weight.
        Random = "random",
        /// By a consistent hash of the flow: the same backend from whichever node it enters.
        Maglev = "maglev",
        /// The backend with the fewest flows.
        LeastConn = "least-conn",
    }
}

word_enum! {
    /// Which backends of a service are preferred.
    Locality, "locality" {
        /// All alike.
        Spread = "spread",
        /// Those on the same node as long as there are any.
        PreferLocal = "prefer-local",
        /// Only those on the same node.
        LocalOnly = "local-only",
    }
}

word_enum! {
    /// How answers return when a flow came in by a published port of one node and its task is on another.
    #[derive(Default)]
    ReturnPath, "return path" {
        /// Back through the entry node: needs nothing of the network.
        #[default]
        Tunnel = "tunnel",
        /// Straight from the task's node, with the published address as source: the network must let that pass.
        Dsr = "dsr",
        /// Back to the entry node, whose address the task sees instead of the client's.
        Snat = "snat",
    }
}

/// Whether flows of one client stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Affinity {
    /// Each flow for itself.
    #[default]
    None,
    /// All flows of one client address go to one backend while it is there.
    ClientIp {
        /// How long after its last flow a client is remembered.
        timeout: Duration,
    },
}

/// A port of every (or some) node's own addresses that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port clients use, host byte order.
    pub published: u16,
    /// The port tasks listen on.
    pub target: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Everywhere or where tasks are.
    pub mode: PublishMode,
    /// Only on these addresses of a node; empty: on all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ip: Vec<IpAddr>,
    /// Only on these nodes; empty: on all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Name>,
    /// Only for these clients; empty: for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<IpNet>,
}

/// Two published ports that cannot both be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConflict {
    /// The port both want.
    pub published: u16,
    /// In this protocol.
    pub protocol: Protocol,
}

impl PublishedPort {
    /// Whether both can exist in one mesh: another port, protocol, address set or node set.
    pub fn conflict(&self, other: &Self) -> Option<PortConflict> {
        fn meet<T: PartialEq>(a: &[T], b: &[T]) -> bool {
            a.is_empty() || b.is_empty() || a.iter().any(|x| b.contains(x))
        }
        let same = self.published == other.published
            && self.protocol == other.protocol
            && meet(&self.host_ip, &other.host_ip)
            && meet(&self.nodes, &other.nodes);
        same.then_some(PortConflict { published: self.published, protocol: self.protocol })
    }
}

/// Swarm's notation: `*:8080->80/tcp`.
impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, target, protocol, host_ip, .. } = self;
        if host_ip.is_empty() {
            return write!(f, "*:{published}->{target}/{protocol}");
        }
        let each: Vec<_> =
            host_ip.iter().map(|ip| format!("{ip}:{published}->{target}/{protocol}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// A name of a port that tasks listen on, published or not: `_http._tcp.web` asks for it (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortName {
    /// `http`, as RFC 6335 §5.1 has it.
    pub name: Name,
    /// The port, host byte order.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What DNS tells of a service beside its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovery {
    /// Whether the names of its tasks also lead to those that cannot serve yet, or not now. Its VIP never does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub publish_not_ready: bool,
    /// Names of its ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_names: Vec<PortName>,
}

impl Discovery {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A service's virtual address in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6, where the network has it.
    pub v6: Option<Ipv6Addr>,
}

impl Vip {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(IpAddr::V4(self.v4)).chain(self.v6.map(IpAddr::V6))
    }
}

/// A service's place in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The network.
    pub network: NetworkId,
    /// None for dnsrr.
    pub vip: Option<Vip>,
    /// Further names in this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<Name>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Never changes.
    pub id: ServiceId,
    /// Unique among services.
    pub name: Name,
    /// VIP or dnsrr.
    pub mode: EndpointMode,
    /// Networks, in the order given; the first is where published ports find the tasks.
    pub networks: Vec<Attachment>,
    /// Ports of the nodes that lead here.
    pub ports: Vec<PublishedPort>,
    /// How flows are spread.
    pub balancing: Balancing,
    /// Whether a client's flows stay together.
    pub affinity: Affinity,
    /// Whether near backends are preferred.
    pub locality: Locality,
    /// How long running flows of a leaving task may take to end.
    pub drain_timeout: Duration,
    /// How answers return from a task on another node than the one a flow came in by; published ports only.
    #[serde(default)]
    pub return_path: ReturnPath,
    /// How long an established TCP flow, or a UDP flow, is remembered while nothing is sent; none: as long as the
    /// data plane does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// How long the share of a task that has just come into the balance grows; zero: it has all of it at once.
    #[serde(default)]
    pub slow_start: Duration,
    /// What tells whether a task can serve; none: it serves while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Whether tasks are left out for a while for what they make of connections.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub passive_health: bool,
    /// What DNS tells of it beside its addresses.
    #[serde(default, skip_serializing_if = "Discovery::is_default")]
    pub discovery: Discovery,
    /// What the mesh itself runs for it; none: others start its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Free text of the user's.
    pub labels: BTreeMap<String, String>,
    /// Grows by one with each change.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

fn yes() -> bool {
    true
}

impl Service {
    /// Its place in a network.
    pub fn attachment(&self, network: &NetworkId) -> Option<&Attachment> {
        self.networks.iter().find(|a| a.network == *network)
    }
}
