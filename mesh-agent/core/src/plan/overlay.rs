//! **Decision.** The node's overlay: one VXLAN device, a neighbour per peer, a route per remote block, a veth
//! per local task and network.
//!
//! L3 only, no bridge and no flooding. The VXLAN device is in collect-metadata mode (`ip-link(8)`, `external`):
//! each route carries the tunnel's key, so the number of devices does not grow with networks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::ground::Base;
use super::part::Scene;
use super::{Family, Problem};
use crate::model::{
    Block, Network, NetworkId, Node, Origin, Service, SharedMap, Snapshot, Task, TaskAddress, TaskId,
    TaskState, Vni, fnv64,
};

/// All our devices' names begin with it.
pub const DEVICE_PREFIX: &str = "mesh";
/// The tunnel device.
pub const VTEP_DEVICE: &str = "mesh0";
/// Outer IPv4 (20), UDP (8), VXLAN (8) and inner Ethernet (14) headers, RFC 7348 §5.
const OVERHEAD_V4: u32 = 50;
/// The same with an outer IPv6 header.
const OVERHEAD_V6: u32 = 70;
/// The least that IPv6 asks of a link (RFC 8200 §5).
const MIN_MTU: u32 = 1280;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// The MAC of the tunnel device of the node at an underlay address: locally administered, the same
    /// whoever works it out. It must differ between nodes, for a VXLAN device drops what comes from its own.
    pub fn of_vtep(underlay: IpAddr) -> Self {
        match underlay {
            IpAddr::V4(a) => {
                let [b0, b1, b2, b3] = a.octets();
                Self([0x02, 0x4d, b0, b1, b2, b3])
            }
            IpAddr::V6(a) => {
                let [.., b0, b1, b2, b3] = fnv64(&a.octets()).to_be_bytes();
                Self([0x06, 0x4d, b0, b1, b2, b3])
            }
        }
    }

    /// The MAC of a task's end of its veth, by the name of the host's end.
    pub fn of_task(device: &str) -> Self {
        let [.., b0, b1, b2, b3] = fnv64(device.as_bytes()).to_be_bytes();
        Self([0x02, 0x54, b0, b1, b2, b3])
    }

    /// The MAC of the host's end of every veth. They never meet on one link.
    pub const HOST_END: Self = Self([0x02, 0x4d, 0, 0, 0, 1]);
}

/// The tunnel device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vtep {
    /// Its own address.
    pub mac: Mac,
    /// UDP port, both ends.
    pub port: u16,
    /// Bytes that an inner IP packet can have.
    pub mtu: u32,
}

/// Where packets to a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Into the tunnel to another node.
    Tunnel {
        /// The network.
        vni: Vni,
        /// Our end of the tunnel.
        local: IpAddr,
        /// The other end; also the next hop's name on the tunnel device.
        remote: IpAddr,
        /// What the node's own packets to it come from: an address that tasks there can answer.
        source: Option<IpAddr>,
    },
    /// Delivered here: VIPs (the kernel answers their pings) and the node's own overlay addresses.
    Local {
        /// What the node's own packets to it come from.
        source: Option<IpAddr>,
    },
    /// To a task on this node.
    Endpoint {
        /// The host's end of its veth.
        device: String,
        /// What the node's own packets to it come from: a task of an internal network knows no other way back.
        source: Option<IpAddr>,
    },
    /// Refused at once: a network's addresses that lead nowhere.
    Unreachable,
}

/// One task's connection to one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The task.
    pub task: TaskId,
    /// Where its network namespace is.
    pub origin: Origin,
    /// The network; also the device's group, which is how rules know it.
    pub vni: Vni,
    /// MAC of the task's end.
    pub mac: Mac,
    /// The task's addresses.
    pub addresses: TaskAddress,
    /// Bytes.
    pub mtu: u32,
    /// Name of the task's end.
    pub inside: String,
    /// What the task reaches through it. The first connection with a way to the world has the default routes.
    pub routes: Vec<IpNet>,
}

/// The overlay of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The tunnel device.
    pub vtep: Option<Vtep>,
    /// MACs of other nodes' tunnel devices, by underlay address.
    pub peers: BTreeMap<IpAddr, Mac>,
    /// Routes by prefix.
    pub routes: SharedMap<IpNet, Route>,
    /// Local tasks' connections, by the name of the host's device.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// The name of the host's end of a task's veth: 15 characters at most, the same after every restart.
pub fn endpoint_device(task: &TaskId, network: &NetworkId) -> String {
    let hash = fnv64(format!("{task}/{network}").as_bytes());
    format!("{DEVICE_PREFIX}{:011x}", hash >> 20)
}

/// The tunnel device, other nodes, and networks.
pub(super) fn lay(world: &Snapshot, me: &Node, base: &mut Base) {
    let overhead = if me.address.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
    let mtu = me.uplink_mtu.saturating_sub(overhead);
    if mtu < MIN_MTU {
        base.problems.push(Problem {
            about: format!("node {}", me.name),
            message: format!(
                "its uplink carries {} bytes, which leaves {mtu} for the overlay; at least {} are needed",
                me.uplink_mtu,
                MIN_MTU + overhead
            ),
        });
    }
    let mtu = mtu.max(576);
    base.vtep = Some(Vtep { mac: Mac::of_vtep(me.address), port: me.vxlan_port, mtu });
    for peer in world.nodes.values().filter(|peer| peer.id != me.id) {
        // Two address families cannot tunnel to each other.
        if peer.address.is_ipv4() == me.address.is_ipv4() && peer.address != me.address {
            base.peers.insert(peer.address, Mac::of_vtep(peer.address));
        } else {
            base.problems.push(Problem {
                about: format!("node {}", peer.name),
                message: format!("its address {} cannot be tunnelled to from {}", peer.address, me.address),
            });
        }
    }
    for network in world.networks.values() {
        lay_network(world, me, network, base);
    }
}

fn lay_network(world: &Snapshot, me: &Node, network: &Network, base: &mut Base) {
    for subnet in network.subnets() {
        base.routes.insert(subnet, Route::Unreachable);
    }
    let node_own = base.own.get(&network.id).copied();
    let blocks = world.blocks.range((network.id.clone(), Block(0))..=(network.id.clone(), Block(u32::MAX)));
    for ((_, block), owner) in blocks {
        if !network.blocks().contains(&block.0) {
            base.problems.push(Problem {
                about: format!("network {}", network.name),
                message: format!("block {} lies outside of it and is ignored", block.0),
            });
        } else if *owner == me.id {
            let own = network.gateway(*block);
            for address in own.addresses() {
                base.routes.insert(IpNet::from(address), Route::Local { source: None });
            }
        } else if let Some(peer) =
            world.nodes.get(owner).filter(|peer| base.peers.contains_key(&peer.address))
        {
            let (vni, local, remote) = (network.vni, me.address, peer.address);
            for net in network.block_nets(*block) {
                let source = node_own.and_then(|own| Family::of(net.addr()).pick(own));
                base.routes.insert(net, Route::Tunnel { vni, local, remote, source });
            }
        }
    }
}

/// The VIPs of a service.
pub(super) fn vips(
    scene: Scene<'_>,
    service: &Service,
    tasks: &[Arc<Task>],
    routes: &mut BTreeMap<IpNet, Route>,
) {
    for attachment in &service.networks {
        let Some(vip) = attachment.vip.filter(|_| scene.world.networks.contains_key(&attachment.network))
        else {
            continue;
        };
        let own = scene.base.own.get(&attachment.network).copied();
        // While a task runs, flows to it go on even if it gets no new ones: the data plane refuses those. Without
        // any the VIP is unreachable.
        let mut running = tasks.iter().filter(|task| task.state == TaskState::Running);
        if running.any(|task| task.addresses.contains_key(&attachment.network)) {
            for address in vip.addresses() {
                let source = own.and_then(|own| Family::of(address).pick(own));
                routes.insert(IpNet::from(address), Route::Local { source });
            }
        }
    }
}

/// A node's own addresses in a network: those of its first block there; none: it has no block.
pub fn own_address(world: &Snapshot, me: &Node, id: &NetworkId) -> Option<TaskAddress> {
    let network = world.networks.get(id)?;
    let mut blocks = world.blocks.range((id.clone(), Block(0))..=(id.clone(), Block(u32::MAX)));
    let own = blocks.find(|((_, block), owner)| **owner == me.id && network.blocks().contains(&block.0));
    own.map(|((_, block), _)| network.gateway(*block))
}

/// The connections of a task of this node.
pub(super) fn attach(
    scene: Scene<'_>,
    service: Option<&Service>,
    task: &Task,
    routes: &mut BTreeMap<IpNet, Route>,
    endpoints: &mut BTreeMap<String, Endpoint>,
) {
    let mut default_given = false;
    let mtu = scene.base.vtep.as_ref().map_or(MIN_MTU, |vtep| vtep.mtu);
    for (index, (network, addresses)) in ordered_networks(scene.world, service, task).into_iter().enumerate()
    {
        let device = endpoint_device(&task.id, &network.id);
        let own = scene.base.own.get(&network.id).copied();
        for address in addresses.addresses() {
            let source = own.and_then(|own| Family::of(address).pick(own));
            routes.insert(IpNet::from(address), Route::Endpoint { device: device.clone(), source });
        }
        let mut inside: Vec<IpNet> = network.subnets().collect();
        if !network.internal && !default_given {
            default_given = true;
            inside.extend(DEFAULT_ROUTES.iter().filter(|net| net.addr().is_ipv4() || network.v6.is_some()));
        }
        let endpoint = Endpoint {
            task: task.id.clone(),
            origin: task.origin.clone(),
            vni: network.vni,
            mac: Mac::of_task(&device),
            addresses,
            mtu: network.mtu.map_or(mtu, |wanted| mtu.min(u32::from(wanted))),
            inside: format!("eth{index}"),
            routes: inside,
        };
        endpoints.insert(device, endpoint);
    }
}

const DEFAULT_ROUTES: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
];

/// The networks that a task is in, as its names are looked for.
pub fn networks(world: &Snapshot, task: &Task) -> Vec<NetworkId> {
    let service = task.service.as_ref().and_then(|id| world.services.get(id));
    let networks = ordered_networks(world, service.map(AsRef::as_ref), task);
    networks.into_iter().map(|(network, _)| network.id.clone()).collect()
}

/// A task's networks in the order of its service, then by id: `eth0` is the first.
fn ordered_networks<'a>(
    world: &'a Snapshot,
    service: Option<&Service>,
    task: &Task,
) -> Vec<(&'a Network, TaskAddress)> {
    let place = |id: &NetworkId| {
        service.and_then(|s| s.networks.iter().position(|a| a.network == *id)).unwrap_or(usize::MAX)
    };
    let mut attached: Vec<_> = task
        .addresses
        .iter()
        .filter_map(|(id, address)| Some((world.networks.get(id)?.as_ref(), *address)))
        .collect();
    attached.sort_by_key(|(network, _)| place(&network.id));
    attached
}
