//! **Decision.** The contract of the data planes: which frontends there are, what is behind each, who may pass.
//!
//! It says nothing of nftables or BPF. A plane turns it into rules or maps and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::mask;
use super::overlay::{Mac, endpoint_device};
use super::part::Scene;
use crate::model::{
    Affinity, Balancing, Locality, Name, NetworkId, Node, NodeId, Origin, Protocol, PublishMode,
    PublishedPort, ReturnPath, Service, SharedMap, Snapshot, Task, TaskAddress, TaskId, TaskState, Vni,
};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The address of this family, if there is one.
    pub fn pick(self, addresses: TaskAddress) -> Option<IpAddr> {
        addresses.addresses().find(|address| Self::of(*address) == self)
    }
}

/// What clients send to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A service's address in one network: every TCP and UDP port of it, unchanged to the task.
    Vip {
        /// The network, whose tasks alone may use it.
        vni: Vni,
        /// The address.
        address: IpAddr,
    },
    /// A port of the node's own.
    Published {
        /// TCP or UDP.
        protocol: Protocol,
        /// The port.
        port: u16,
        /// Only on this address of the node; none: on all.
        address: Option<IpAddr>,
        /// Clients of this family.
        family: Family,
    },
}

/// One place that a flow can go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The task.
    pub id: TaskId,
    /// Its number among the service's tasks.
    pub slot: u32,
    /// Its address in the pool's network.
    pub address: IpAddr,
    /// Where it runs.
    pub node: NodeId,
    /// Whether that is here.
    pub local: bool,
    /// Share of new flows in relation to the others; never 0.
    pub weight: u16,
}

/// What is behind a frontend. Empty: refuse at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The service.
    pub service: Name,
    /// The network that the backends' addresses belong to.
    pub vni: Vni,
    /// The port of the tasks; none: as the client chose.
    pub target: Option<u16>,
    /// How flows are spread.
    pub balancing: Balancing,
    /// Whether a client's flows stay together.
    pub affinity: Affinity,
    /// How answers of a task on another node return; means something for published ports only.
    pub return_path: ReturnPath,
    /// How long a silent flow is remembered, as asked for; none: as long as the plane does by itself.
    pub idle: Option<Duration>,
    /// Only for these clients; empty: for all. Others are refused as if nothing were here.
    pub allow: Vec<IpNet>,
    /// In the order of slots. Pools of one service share them as long as they have the same.
    pub backends: Arc<[Backend]>,
}

impl Pool {
    /// The name of a task in it, for people: `web.1`.
    pub fn task(&self, backend: &Backend) -> String {
        format!("{}.{}", self.service, backend.slot)
    }
}

/// Who may pass to and from a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkGate {
    /// Its addresses. Only its own tasks and nodes reach them.
    pub subnets: Vec<IpNet>,
    /// Whether its tasks may reach the world (masqueraded).
    pub egress: bool,
    /// The node's own addresses in it: what hairpins and the node's own traffic come from.
    pub gateway: Option<TaskAddress>,
}

/// What may come out of a local task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortGate {
    /// Its network.
    pub vni: Vni,
    /// The only sources that are let through.
    pub addresses: TaskAddress,
}

/// Where a task is reached in one network, whether or not it gets new flows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The MAC of the task's end of its veth.
    pub mac: Mac,
    /// The host's end, on this node; empty: it is elsewhere.
    pub device: Box<str>,
    /// The underlay address of the task's node; none: this one.
    pub peer: Option<IpAddr>,
    /// The task's share of flows in relation to others'; never 0.
    pub weight: u16,
    /// The task's node does not answer.
    pub silent: bool,
}

/// Everything a data plane must know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// This node's underlay address.
    pub node: Option<IpAddr>,
    /// Bytes of an IP packet that fit into the tunnel.
    pub tunnel_mtu: u32,
    /// The UDP port that tunnels of all nodes lead to; 0: there are none.
    pub tunnel_port: u16,
    /// Those of the nodes that it tunnels to.
    pub peers: BTreeSet<IpAddr>,
    /// Running tasks: flows that they have go on, also while they get no new ones.
    pub sites: SharedMap<(Vni, IpAddr), Arc<Site>>,
    /// Frontends and what is behind them. What a plan shares with the one before is compared by its address.
    pub frontends: SharedMap<Frontend, Arc<Pool>>,
    /// Networks.
    pub networks: BTreeMap<Vni, NetworkGate>,
    /// Local tasks' devices.
    pub ports: BTreeMap<String, PortGate>,
    /// Where the tasks behind them live whose sockets may be balanced.
    pub origins: BTreeMap<String, Origin>,
}

/// Where a running task is reached.
pub(super) fn sites(scene: Scene<'_>, task: &Task) -> Vec<((Vni, IpAddr), Arc<Site>)> {
    let mut sites = Vec::new();
    let peer = match scene.world.nodes.get(&task.node) {
        _ if task.state != TaskState::Running => return sites,
        Some(node) if node.id == *scene.me => None,
        Some(node) if scene.base.peers.contains_key(&node.address) => Some(node.address),
        _ => return sites,
    };
    let silent = peer.is_some() && mask::is_dead(&scene.masks.nodes, &task.node);
    for (id, address) in &task.addresses {
        let Some(network) = scene.world.networks.get(id) else { continue };
        let device = endpoint_device(&task.id, id);
        let mac = Mac::of_task(&device);
        let device = if peer.is_none() { device.into() } else { Box::default() };
        let site = Arc::new(Site { mac, device, peer, weight: task.weight, silent });
        sites.extend(address.addresses().map(|address| ((network.vni, address), Arc::clone(&site))));
    }
    sites
}

/// What clients of a service send to, with those of its tasks behind it that serve.
pub(super) fn frontends(
    scene: Scene<'_>,
    service: &Service,
    tasks: &[&Arc<Task>],
    frontends: &mut BTreeMap<Frontend, Arc<Pool>>,
) {
    let Some(me) = scene.world.nodes.get(scene.me) else { return };
    let mut serving = Serving { world: scene.world, me, tasks, known: BTreeMap::new() };
    plan_vips(scene.world, service, &mut serving, frontends);
    for port in &service.ports {
        plan_port(scene.world, me, service, port, &mut serving, frontends);
    }
}

fn plan_vips<'a>(
    world: &Snapshot,
    service: &'a Service,
    serving: &mut Serving<'a>,
    frontends: &mut BTreeMap<Frontend, Arc<Pool>>,
) {
    for attachment in &service.networks {
        let (Some(vip), Some(network)) = (attachment.vip, world.networks.get(&attachment.network)) else {
            continue;
        };
        for address in vip.addresses() {
            let family = Family::of(address);
            let backends = serving.backends(&attachment.network, family, service.locality);
            let pool = pool(service, network.vni, None, &[], backends);
            frontends.insert(Frontend::Vip { vni: network.vni, address }, pool);
        }
    }
}

fn plan_port<'a>(
    world: &'a Snapshot,
    me: &Node,
    service: &Service,
    port: &PublishedPort,
    serving: &mut Serving<'a>,
    frontends: &mut BTreeMap<Frontend, Arc<Pool>>,
) {
    if !port.nodes.is_empty() && !port.nodes.contains(&me.name) {
        return;
    }
    let known = service.networks.iter().find_map(|a| world.networks.get(&a.network));
    let Some(network) = known else { return };
    let locality = match port.mode {
        PublishMode::Ingress => service.locality,
        PublishMode::Host => Locality::LocalOnly,
    };
    let families: BTreeSet<Family> =
        Family::ALL.into_iter().filter(|f| *f == Family::V4 || network.v6.is_some()).collect();
    for family in families {
        let backends = serving.backends(&network.id, family, locality);
        if backends.is_empty() && port.mode == PublishMode::Host {
            continue;
        }
        let allow: Vec<IpNet> =
            port.allow.iter().filter(|net| Family::of(net.addr()) == family).copied().collect();
        if allow.is_empty() && !port.allow.is_empty() {
            // Nobody of this family is allowed.
            continue;
        }
        let pool = pool(service, network.vni, Some(port.target), &allow, backends);
        let mut insert = |address| {
            let frontend =
                Frontend::Published { protocol: port.protocol, port: port.published, address, family };
            frontends.insert(frontend, Arc::clone(&pool));
        };
        if port.host_ip.is_empty() {
            insert(None);
        }
        for address in port.host_ip.iter().filter(|address| Family::of(**address) == family) {
            insert(Some(*address));
        }
    }
}

fn pool(
    service: &Service,
    vni: Vni,
    target: Option<u16>,
    allow: &[IpNet],
    backends: Arc<[Backend]>,
) -> Arc<Pool> {
    Arc::new(Pool {
        service: service.name.clone(),
        vni,
        target,
        balancing: service.balancing,
        affinity: service.affinity,
        return_path: service.return_path,
        idle: service.idle_timeout,
        allow: allow.to_vec(),
        backends,
    })
}

/// Those of a service's tasks that serve, as backends.
struct Serving<'a> {
    world: &'a Snapshot,
    me: &'a Node,
    tasks: &'a [&'a Arc<Task>],
    /// What was asked for already: a VIP and a published port mostly lead to the same.
    known: BTreeMap<(&'a NetworkId, Family, Locality), Arc<[Backend]>>,
}

impl<'a> Serving<'a> {
    fn backends(&mut self, network: &'a NetworkId, family: Family, locality: Locality) -> Arc<[Backend]> {
        let known = self.known.get(&(network, family, locality)).cloned();
        known.unwrap_or_else(|| {
            let backends: Arc<[Backend]> = self.list(network, family, locality).into();
            self.known.insert((network, family, locality), Arc::clone(&backends));
            backends
        })
    }

    fn list(&self, network: &NetworkId, family: Family, locality: Locality) -> Vec<Backend> {
        let mut all: Vec<Backend> = (self.tasks.iter())
            .filter_map(|task| {
                Some(Backend {
                    id: task.id.clone(),
                    slot: task.slot,
                    address: family.pick(*task.addresses.get(network)?)?,
                    node: task.node.clone(),
                    local: task.node == self.me.id,
                    weight: task.weight,
                })
            })
            .filter(|backend| backend.local || self.world.nodes.contains_key(&backend.node))
            .collect();
        let local = all.iter().any(|backend| backend.local);
        match locality {
            Locality::Spread => {}
            Locality::PreferLocal if !local => {}
            Locality::PreferLocal | Locality::LocalOnly => all.retain(|backend| backend.local),
        }
        all
    }
}
