//! **Decision.** What every part of a plan stands on: this node, the others, the networks and who holds their blocks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::overlay::{self, Mac, Route, Vtep};
use super::{NetworkGate, Problem};
use crate::model::{NetworkId, Node, NodeId, SharedMap, Snapshot, TaskAddress, Vni};

/// Whether two worlds have the same of that, as far as a node's plan depends on it. Then a change of a service or a task
/// changes its own part of the plan alone.
pub(super) fn is_same(one: &Snapshot, other: &Snapshot, me: &NodeId) -> bool {
    let place = |node: &Arc<Node>| {
        let own = (node.id == *me).then_some((node.uplink_mtu, node.vxlan_port));
        (node.address, node.name.clone(), own)
    };
    one.networks == other.networks
        && one.blocks == other.blocks
        && one.nodes.changes(&other.nodes).all(|(_, was, is)| was.map(place) == is.map(place))
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
