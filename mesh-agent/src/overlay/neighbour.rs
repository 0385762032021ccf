//! **Effect.** Permanent neighbours on our devices: nobody is ever asked for an Ethernet address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_core::plan::Overlay;
use mesh_core::plan::{Mac, VTEP_DEVICE};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};

use super::route::link_local;

/// What tells one neighbour from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Index.
    pub(super) device: u32,
    pub(super) address: IpAddr,
}

/// The neighbours of a node: peers on the tunnel device, tasks on their veths.
///
/// A peer is known by its underlay address, and by the link-local address of its MAC for routes that cannot
/// have the former as next hop; the latter only where IPv6 is used at all.
pub(super) fn resolve(want: &Overlay, devices: &BTreeMap<String, u32>) -> BTreeMap<Key, Mac> {
    let v6 = uses_v6(want);
    let mut neighbours = BTreeMap::new();
    if let Some(&device) = devices.get(VTEP_DEVICE) {
        for (&address, &mac) in &want.peers {
            neighbours.insert(Key { device, address }, mac);
            if v6 {
                neighbours.insert(Key { device, address: link_local(mac).into() }, mac);
            }
        }
    }
    for (name, endpoint) in &want.endpoints {
        let Some(&device) = devices.get(name) else {
            continue;
        };
        for address in endpoint.addresses.addresses() {
            neighbours.insert(Key { device, address }, endpoint.mac);
        }
    }
    neighbours
}

/// Whether anything in the plan needs a kernel with IPv6.
pub(super) fn uses_v6(want: &Overlay) -> bool {
    want.routes.keys().any(|net| net.addr().is_ipv6()) || want.peers.keys().any(IpAddr::is_ipv6)
}

/// One from a dump.
pub(super) fn decode(message: &NeighbourMessage) -> Option<(Key, Mac)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found))
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some((Key { device: message.header.ifindex, address: address? }, mac?))
}
