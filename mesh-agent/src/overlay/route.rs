//! **Effect.** Routes of ours as the kernel has them: found by their protocol, compared and written as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use mesh_core::plan::{Mac, Route, VTEP_DEVICE};
use rtnetlink::packet_route::route::{RouteProtocol, RouteType};

mod wire;

pub(super) use wire::{decode, encode, removal};

/// The mark of our routes (rtm_protocol, rtnetlink(7)): `M`.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x4d);

pub(super) const MAIN: u32 = 254;
const LOCAL: u32 = 255;
/// What the kernel makes of an IPv6 route without a metric.
const V6_METRIC: u32 = 1024;

/// What tells one route from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) table: u32,
    pub(super) net: IpNet,
    pub(super) metric: u32,
}

impl Key {
    pub(super) fn new(table: u32, net: IpNet) -> Self {
        Self { table, net, metric: if net.addr().is_ipv4() { 0 } else { V6_METRIC } }
    }

    /// All that a planned route to a prefix may have.
    pub(super) fn all(net: IpNet) -> [Self; 2] {
        [MAIN, LOCAL].map(|table| Self::new(table, net))
    }
}

/// The rest of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) kind: RouteType,
    /// Index; 0 without one.
    pub(super) device: u32,
    /// On the device's link by decree, whatever its addresses are.
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) tunnel: Option<Tunnel>,
    /// Has what we never write: somebody changed it.
    pub(super) odd: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) id: u64,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
}

impl Path {
    fn of_kind(kind: RouteType) -> Self {
        Self { kind, device: 0, gateway: None, source: None, tunnel: None, odd: false }
    }

    pub(super) fn through(device: u32, gateway: Option<IpAddr>, source: Option<IpAddr>) -> Self {
        Self { device, gateway, source, ..Self::of_kind(RouteType::Unicast) }
    }
}

/// What a planned route is for a kernel with these devices.
pub(super) fn resolve(
    net: IpNet,
    route: &Route,
    devices: &BTreeMap<String, u32>,
    peers: &BTreeMap<IpAddr, Mac>,
) -> Result<(Key, Path), String> {
    let index =
        |name: &str| devices.get(name).copied().ok_or_else(|| format!("its device {name} is not there"));
    Ok(match route {
        Route::Tunnel { vni, local, remote, source } => {
            let mac = peers.get(remote).ok_or_else(|| format!("{remote} is not a known peer"))?;
            let path = Path::through(index(VTEP_DEVICE)?, Some(next_hop(net, *remote, *mac)), *source);
            let tunnel = Tunnel { id: u64::from(vni.0), local: *local, remote: *remote };
            (Key::new(MAIN, net), Path { tunnel: Some(tunnel), ..path })
        }
        Route::Local { source } => {
            let path = Path { device: LOOPBACK, source: *source, ..Path::of_kind(RouteType::Local) };
            (Key::new(LOCAL, net), path)
        }
        Route::Endpoint { device, source } => {
            (Key::new(MAIN, net), Path::through(index(device)?, None, *source))
        }
        Route::Unreachable => (Key::new(MAIN, net), Path::of_kind(RouteType::Unreachable)),
    })
}

/// `lo` is the first device of every namespace (kernel net/core/dev.c, loopback_net_init).
pub(super) const LOOPBACK: u32 = 1;

/// A peer's name on the tunnel device. IPv6 routes refuse a next hop of another family, and IPv4 ones refuse an
/// IPv6 address that is routed elsewhere; an address of the link's own, made from the peer's MAC, suits all.
fn next_hop(net: IpNet, remote: IpAddr, mac: Mac) -> IpAddr {
    if net.addr().is_ipv4() && remote.is_ipv4() { remote } else { link_local(mac).into() }
}

/// The link-local address of an Ethernet address (RFC 4291 appendix A).
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests;
