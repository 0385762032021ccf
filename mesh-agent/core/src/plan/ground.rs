//! **Decision.** What every part of a plan stands on: this node, the others, the networks and who holds their blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::overlay::{self, Mac, Route, Vtep};
use super::{NetworkGate, Problem};
use crate::model::{Block, Name, Network, NetworkId, Node, NodeId, SharedMap, Snapshot, TaskAddress, Vni};

/// As far as plans depend on it. While it stays, a change of a service or a task changes its own part of the plan alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) me: NodeId,
    pub(super) uplink_mtu: u32,
    pub(super) vxlan_port: u16,
    routes: BTreeSet<IpNet>,
    pub(super) nodes: BTreeMap<NodeId, (IpAddr, Name)>,
    pub(super) networks: SharedMap<NetworkId, Arc<Network>>,
    pub(super) blocks: SharedMap<(NetworkId, Block), NodeId>,
}

impl Ground {
    pub(super) fn of(world: &Snapshot, me: &Node) -> Self {
        Self {
            me: me.id.clone(),
            uplink_mtu: me.uplink_mtu,
            vxlan_port: me.vxlan_port,
            routes: me.routes.clone(),
            nodes: world
                .nodes
                .iter()
                .map(|(id, node)| (id.clone(), (node.address, node.name.clone())))
                .collect(),
            networks: world.networks.clone(),
            blocks: world.blocks.clone(),
        }
    }
}

/// What it comes to on this node, whatever services and tasks there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Base {
    pub(super) vtep: Option<Vtep>,
    pub(super) peers: BTreeMap<IpAddr, Mac>,
    pub(super) routes: SharedMap<IpNet, Route>,
    pub(super) gates: BTreeMap<Vni, NetworkGate>,
    /// The node's own addresses, by network.
    pub(super) own: BTreeMap<NetworkId, TaskAddress>,
    pub(super) problems: Vec<Problem>,
}

impl Base {
    pub(super) fn of(world: &Snapshot, me: &Node) -> Self {
        let mut base = Self::default();
        let own = |id: &NetworkId| Some((id.clone(), overlay::own_address(world, me, id)?));
        base.own = world.networks.keys().filter_map(own).collect();
        overlay::lay(world, me, &mut base);
        for network in world.networks.values() {
            let gate = NetworkGate {
                subnets: network.subnets().collect(),
                egress: !network.internal,
                gateway: base.own.get(&network.id).copied(),
            };
            base.gates.insert(network.vni, gate);
        }
        base
    }
}
