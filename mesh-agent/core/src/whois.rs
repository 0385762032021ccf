//! **Decision.** Whose an address or a port is, in words for people.
//!
//! The kernel knows addresses, people know names. An index, because whoever watches flows asks thousands of times.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::kv::Rev;
use crate::model::{Name, NodeId, Protocol, PublishedPort, Snapshot, Vni};

/// Who has an address inside of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `web.1`
    pub task: String,
    /// What it serves, if it serves anything.
    pub service: Option<Name>,
    /// The name of its node.
    pub node: String,
    /// The network of the address.
    pub network: Name,
}

/// Names for the addresses and ports of a world, as one node has them.
#[derive(Debug, Clone, Default)]
pub struct Whois {
    /// What this comes from.
    pub rev: Rev,
    vips: BTreeMap<IpAddr, Name>,
    ports: BTreeMap<(Protocol, u16), Vec<(PublishedPort, Name)>>,
    tasks: BTreeMap<(Vni, IpAddr), Owner>,
    nodes: BTreeMap<IpAddr, Name>,
}

impl Whois {
    /// Of a world, at a node.
    pub fn of(world: &Snapshot, me: &NodeId) -> Self {
        let mut whois = Self { rev: world.changed, ..Self::default() };
        let my_name = world.nodes.get(me).map(|node| &node.name);
        for service in world.services.values() {
            for vip in service.networks.iter().filter_map(|attachment| attachment.vip) {
                whois.vips.extend(vip.addresses().map(|address| (address, service.name.clone())));
            }
            for port in &service.ports {
                if port.nodes.is_empty() || my_name.is_some_and(|name| port.nodes.contains(name)) {
                    let at = whois.ports.entry((port.protocol, port.published)).or_default();
                    at.push((port.clone(), service.name.clone()));
                }
            }
        }
        for task in world.tasks.values() {
            let service = task.service.as_ref().and_then(|id| world.services.get(id));
            let node =
                world.nodes.get(&task.node).map_or_else(|| task.node.to_string(), |n| n.name.to_string());
            for (id, address) in &task.addresses {
                let Some(network) = world.networks.get(id) else { continue };
                let owner = Owner {
                    task: world.task_name(task),
                    service: service.map(|service| service.name.clone()),
                    node: node.clone(),
                    network: network.name.clone(),
                };
                whois.tasks.extend(address.addresses().map(|a| ((network.vni, a), owner.clone())));
            }
        }
        whois.nodes = world.nodes.values().map(|node| (node.address, node.name.clone())).collect();
        whois
    }

    /// The service that a client means that sends here.
    pub fn service(&self, protocol: Protocol, address: IpAddr, port: u16) -> Option<&Name> {
        let published = || {
            let all = self.ports.get(&(protocol, port))?;
            let own = all.iter().find(|(port, _)| port.host_ip.contains(&address));
            let any = || all.iter().find(|(port, _)| port.host_ip.is_empty());
            own.or_else(any).map(|(_, name)| name)
        };
        self.vips.get(&address).or_else(published)
    }

    /// The task with an address of a network.
    pub fn task(&self, vni: Vni, address: IpAddr) -> Option<&Owner> {
        self.tasks.get(&(vni, address))
    }

    /// The node with an underlay address.
    pub fn node(&self, address: IpAddr) -> Option<&Name> {
        self.nodes.get(&address)
    }
}
