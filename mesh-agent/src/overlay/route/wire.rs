//! **Effect.** Routes as messages (rtnetlink(7)), both ways.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel,
    RouteLwEnCapType, RouteLwTunnelEncap, RouteMessage, RouteScope, RouteType, RouteVia,
};

use super::{Key, PROTOCOL, Path, Tunnel};
use crate::overlay::kernel::family_of;

/// `RT_SCOPE_NOWHERE`: of any scope.
const ANY_SCOPE: RouteScope = RouteScope::NoWhere;
/// The message that makes a route.
pub(in crate::overlay) fn encode(key: &Key, path: &Path) -> RouteMessage {
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
pub(in crate::overlay) fn removal(key: &Key) -> RouteMessage {
    let mut message = header(key);
    message.header.scope = ANY_SCOPE;
    message
}

fn header(key: &Key) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(key.net.addr());
    message.header.destination_prefix_length = key.net.prefix_len();
    // Tables above 255 have their number in the attribute only.
    message.header.table = u8::try_from(key.table).unwrap_or_default();
    message.header.protocol = PROTOCOL;
    message.attributes =
        vec![RouteAttribute::Destination(key.net.network().into()), RouteAttribute::Table(key.table)];
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
pub(in crate::overlay) fn decode(message: &RouteMessage) -> Option<(Key, Path)> {
    let v4 = message.header.address_family == AddressFamily::Inet;
    let mut key = Key { table: u32::from(message.header.table), net: unspecified(v4), metric: 0 };
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
    if v4 { IpNet::V4(ipnet::Ipv4Net::default()) } else { IpNet::V6(ipnet::Ipv6Net::default()) }
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
    Some(Tunnel { id: id?, local: local?, remote: remote? })
}
