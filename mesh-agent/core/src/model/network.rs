//! Networks: isolated overlays that tasks are attached to.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{Name, NetworkId, Timestamp};

/// A VXLAN network identifier (RFC 7348): 24 bits. It names a network on the wire and in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vni(pub u32);

/// The first identifier that is given out; below it Swarm and Windows have their own.
pub const FIRST_VNI: u32 = 4096;
/// The last identifier that is given out. The upper half is left for the data plane's own use.
pub const LAST_VNI: u32 = (1 << 23) - 1;

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An isolated overlay network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Never changes.
    pub id: NetworkId,
    /// Unique among networks.
    pub name: Name,
    /// Overlaps no other network's and no route of any node.
    pub v4: Ipv4Net,
    /// Second family, if wanted.
    pub v6: Option<Ipv6Net>,
    /// Unique among networks.
    pub vni: Vni,
    /// Smaller than what the underlay allows, if wanted; bytes.
    pub mtu: Option<u16>,
    /// Without a way to the world.
    pub internal: bool,
    /// Wants an encrypted underlay; refused at creation while no data plane can give it.
    pub encrypted: bool,
    /// Free text of the user's.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}

impl Network {
    /// Its subnets, IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        std::iter::once(IpNet::V4(self.v4)).chain(self.v6.map(IpNet::V6))
    }
}
