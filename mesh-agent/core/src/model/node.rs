//! Nodes: what a node says of itself, what the operator says of it, and its sign of life.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::service::word_enum;
use super::{Name, NodeId, Protocol, RunFailure, ServiceId, TaskId, Timestamp, Verified};
use crate::kv::Rev;

word_enum! {
    /// What the operator wants of a node.
    Availability, "availability" {
        /// Takes part.
        Active = "active",
        /// Takes no new tasks; those that run stay in the balance.
        Pause = "pause",
        /// Its tasks get no new flows.
        Drain = "drain",
    }
}

/// A port that a process of a node's own listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// The address; unspecified: all of the node's.
    pub address: IpAddr,
}

/// What a node says of itself. Only it writes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Never changes.
    pub id: NodeId,
    /// Unique among nodes.
    pub name: Name,
    /// Where other nodes reach it: the end of its tunnels.
    pub address: IpAddr,
    /// UDP port of its tunnel.
    pub vxlan_port: u16,
    /// Grows by one with each start of its agent; fences older ones.
    pub epoch: u64,
    /// Tells one boot of the machine from the next (proc(5) boot_id).
    pub boot: String,
    /// The MTU of the device that carries `address`, measured; bytes.
    pub uplink_mtu: u32,
    /// Ports that its own processes use.
    pub listeners: BTreeSet<Listener>,
    /// Prefixes that it already routes elsewhere; networks must not overlap them.
    pub routes: BTreeSet<IpNet>,
    /// The agent's version.
    pub version: String,
    /// When this agent started.
    pub started: Timestamp,
    /// The public key by which its agent's messages are known, in hexadecimal digits; empty: it sends none.
    /// See [`crate::message`].
    #[serde(default)]
    pub key: String,
    /// Its kernel answers probes, and says with that which boot it is and whether its agent lives.
    #[serde(default)]
    pub reflects: bool,
    /// It has left the mesh on purpose: its tasks are no longer to be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// What the operator says of a node. Only the API writes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Whether it takes part.
    pub availability: Availability,
    /// When it last ceased to be drained; 0: it never was.
    #[serde(default)]
    pub undrained: Timestamp,
    /// Since when it is drained, if it is; 0: that was not written down.
    #[serde(default)]
    pub drained: Timestamp,
    /// Free text of the user's.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self { availability: Availability::Active, undrained: 0, drained: 0, labels: BTreeMap::new() }
    }
}

/// A node's sign of life, the only record under a lease. Its loss is a hint to people, never a verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// The epoch of who says so.
    pub epoch: u64,
    /// Everything up to this revision is in its kernel.
    pub applied: Rev,
    /// What is wrong on it now, in words; empty when all is well.
    #[serde(default)]
    pub problems: Vec<String>,
    /// How many connections each of its tasks still has that gets no new ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<TaskId, u64>,
    /// Services whose command does not run here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<ServiceId, RunFailure>,
    /// Services whose tasks' own addresses it told clients by name, who may still go by them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub referred: BTreeSet<ServiceId>,
    /// Which others answer nobody, as far as it can see.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub silent: BTreeSet<NodeId>,
    /// Which others it hears of those that are marked as dead. Of whom it names neither here nor there it says nothing:
    /// it may not know yet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub heard: BTreeSet<NodeId>,
    /// The name of the authority whose certificate it uses; empty: it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority: String,
    /// What it found when all were asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// What managers agree on: a node is dead. It counts for that start of its agent only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Which start of its agent: see [`Node::epoch`].
    pub epoch: u64,
    /// Who did not hear it.
    pub by: BTreeSet<NodeId>,
    /// Since when, by the clock of who wrote it.
    pub since: Timestamp,
}
