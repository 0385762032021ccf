//! **Effect.** Routes of ours as the kernel has them: found by their protocol, compared and written as a whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use mesh_core::plan::{Mac, Route, VTEP_DEVICE};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel,
    RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};

/// The mark of our routes (rtm_protocol, rtnetlink(7)): `M`.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(0x4d);

pub(super) const MAIN: u32 = 254;
const LOCAL: u32 = 255;
/// `RT_SCOPE_NOWHERE`: of any scope.
const ANY_SCOPE: RouteScope = RouteScope::NoWhere;
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
        Self {
            table,
            net,
            metric: if net.addr().is_ipv4() { 0 } else { V6_METRIC },
        }
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
        Self {
            kind,
            device: 0,
            gateway: None,
            source: None,
            tunnel: None,
            odd: false,
        }
    }

    pub(super) fn through(device: u32, gateway: Option<IpAddr>, source: Option<IpAddr>) -> Self {
        Self {
            device,
            gateway,
            source,
            ..Self::of_kind(RouteType::Unicast)
        }
    }
}

/// What a planned route is for a kernel with these devices.
pub(super) fn resolve(
    net: IpNet,
    route: &Route,
    devices: &BTreeMap<String, u32>,
    peers: &BTreeMap<IpAddr, Mac>,
) -> Result<(Key, Path), String> {
    let index = |name: &str| {
        devices
            .get(name)
            .copied()
            .ok_or_else(|| format!("its device {name} is not there"))
    };
    Ok(match route {
        Route::Tunnel {
            vni,
            local,
            remote,
            source,
        } => {
            let mac = peers
                .get(remote)
                .ok_or_else(|| format!("{remote} is not a known peer"))?;
            let path = Path::through(index(VTEP_DEVICE)?, Some(next_hop(net, *remote, *mac)), *source);
            let tunnel = Tunnel {
                id: u64::from(vni.0),
                local: *local,
                remote: *remote,
            };
            (
                Key::new(MAIN, net),
                Path {
                    tunnel: Some(tunnel),
                    ..path
                },
            )
        }
        Route::Local { source } => {
            let path = Path {
                device: LOOPBACK,
                source: *source,
                ..Path::of_kind(RouteType::Local)
            };
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
    if net.addr().is_ipv4() && remote.is_ipv4() {
        remote
    } else {
        link_local(mac).into()
    }
}

/// The link-local address of an Ethernet address (RFC 4291 appendix A).
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The message that makes a route.
pub(super) fn encode(key: &Key, path: &Path) -> RouteMessage {
    let mut message = header(key);
    message.header.kind = path.kind;
    message.header.scope = match (path.kind, path.gateway) {
        (RouteType::Local, _) => RouteScope::Host,
        (RouteType::Unicast, None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    let attributes = &mut message.attributes;
    if path.device != 0 {
        attributes.push(RouteAttribute::Oif(path.device));
    }
    if let Some(source) = path.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    match path.gateway {
        None => {}
        Some(IpAddr::V6(gateway)) if key.net.addr().is_ipv4() => {
            attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
        }
        Some(gateway) => attributes.push(RouteAttribute::Gateway(gateway.into())),
    }
    if let Some(tunnel) = path.tunnel {
        attributes.push(RouteAttribute::Encap(encapsulation(tunnel)));
        let v4 = tunnel.remote.is_ipv4();
        attributes.push(RouteAttribute::EncapType(if v4 {
            RouteLwEnCapType::Ip
        } else {
            RouteLwEnCapType::Ip6
        }));
    }
    if path.gateway.is_some() {
        message.header.flags = RouteFlags::Onlink;
    }
    message
}

/// The message that removes a route, if it is one of ours.
pub(super) fn removal(key: &Key) -> RouteMessage {
    let mut message = header(key);
    message.header.scope = ANY_SCOPE;
    message
}

fn header(key: &Key) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = super::kernel::family_of(key.net.addr());
    message.header.destination_prefix_length = key.net.prefix_len();
    // Tables above 255 have their number in the attribute only.
    message.header.table = u8::try_from(key.table).unwrap_or_default();
    message.header.protocol = PROTOCOL;
    message.attributes = vec![
        RouteAttribute::Destination(key.net.network().into()),
        RouteAttribute::Table(key.table),
    ];
    if key.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(key.metric));
    }
    message
}

fn encapsulation(tunnel: Tunnel) -> Vec<RouteLwTunnelEncap> {
    match (tunnel.local, tunnel.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let options = [
                RouteIpTunnel::Id(tunnel.id),
                RouteIpTunnel::Destination(remote),
                RouteIpTunnel::Source(local),
            ];
            options.map(RouteLwTunnelEncap::Ip).to_vec()
        }
        (local, remote) => {
            let v6 = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            let options = [
                RouteIp6Tunnel::Id(tunnel.id),
                RouteIp6Tunnel::Destination(v6(remote)),
                RouteIp6Tunnel::Source(v6(local)),
                // IPv6 has no checksum of its own: the outer UDP has it (RFC 8200 §8.1).
                RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum),
            ];
            options.map(RouteLwTunnelEncap::Ip6).to_vec()
        }
    }
}

/// One of ours from a dump.
pub(super) fn decode(message: &RouteMessage) -> Option<(Key, Path)> {
    let v4 = message.header.address_family == AddressFamily::Inet;
    let mut key = Key {
        table: u32::from(message.header.table),
        net: unspecified(v4),
        metric: 0,
    };
    let mut path = Path::of_kind(message.header.kind);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                key.net = IpNet::new(ip(address)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Table(table) => key.table = *table,
            RouteAttribute::Priority(metric) => key.metric = *metric,
            RouteAttribute::Oif(index) => path.device = *index,
            RouteAttribute::PrefSource(address) => path.source = ip(address),
            RouteAttribute::Gateway(address) => path.gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => path.gateway = Some((*address).into()),
            RouteAttribute::Encap(options) => path.tunnel = tunnel(options),
            RouteAttribute::MultiPath(_) | RouteAttribute::Metrics(_) | RouteAttribute::NhId(_) => {
                path.odd = true
            }
            _ => {}
        }
    }
    // The kernel shows IPv6 routes that lead nowhere as if they led to `lo`.
    if path.kind == RouteType::Unreachable {
        path.device = 0;
    }
    path.odd |= path.gateway.is_some() != message.header.flags.contains(RouteFlags::Onlink);
    Some((key, path))
}

fn unspecified(v4: bool) -> IpNet {
    if v4 {
        IpNet::V4(ipnet::Ipv4Net::default())
    } else {
        IpNet::V6(ipnet::Ipv6Net::default())
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn tunnel(options: &[RouteLwTunnelEncap]) -> Option<Tunnel> {
    let (mut id, mut local, mut remote) = (None, None, None);
    for option in options {
        match option {
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(value)) => id = Some(*value),
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(address)) => local = Some(IpAddr::V4(*address)),
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(address)) => {
                remote = Some(IpAddr::V4(*address))
            }
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(value)) => id = Some(*value),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(address)) => local = Some(IpAddr::V6(*address)),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(address)) => {
                remote = Some(IpAddr::V6(*address))
            }
            _ => {}
        }
    }
    Some(Tunnel {
        id: id?,
        local: local?,
        remote: remote?,
    })
}

#[cfg(test)]
mod tests;
