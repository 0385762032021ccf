//! **Fact.** What a node's own network is like: measured, never assumed.
//!
//! Of the network namespace in which the calling thread is: that is the node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use mesh_core::model::{Listener, Protocol};
use mesh_core::plan::DEVICE_PREFIX;
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
};
use rtnetlink::sys::AsyncSocket;

use crate::overlay::PROTOCOL;

/// Why the uplink is not known.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The address is not one of this machine's.
    #[error("no device of this node has the address {address}; it has {}", join(.existing))]
    Absent {
        /// What was asked for.
        address: IpAddr,
        /// What there is.
        existing: BTreeSet<IpAddr>,
    },
    /// The kernel did not answer.
    #[error("cannot list the devices that may carry {address}: {source}")]
    Kernel {
        /// What was asked for.
        address: IpAddr,
        /// Why.
        source: io::Error,
    },
}

fn join(addresses: &BTreeSet<IpAddr>) -> String {
    if addresses.is_empty() {
        return "none".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The MTU of the device that carries the node's underlay address.
pub async fn uplink_mtu(address: IpAddr) -> Result<u32, UplinkError> {
    Ok(uplink(address).await?.1)
}

/// The device that carries the node's underlay address, and its MTU.
pub async fn uplink(address: IpAddr) -> Result<(String, u32), UplinkError> {
    let listed = async {
        let handle = connect()?;
        let mut links: Vec<_> =
            handle.link().get().execute().try_collect().await.map_err(io::Error::other)?;
        // The mesh's own carry no underlay, and one of them has the VIPs of all services.
        links.retain(|link| name_of(link).is_some_and(|name| !name.starts_with(DEVICE_PREFIX)));
        let mut addresses = Vec::new();
        for link in &links {
            let request = handle.address().get().set_link_index_filter(link.header.index);
            let found: Vec<_> = request.execute().try_collect().await.map_err(io::Error::other)?;
            addresses.extend(found.into_iter().filter(|found| found.header.index == link.header.index));
        }
        Ok((addresses, links))
    };
    let (addresses, links) = listed.await.map_err(|source| UplinkError::Kernel { address, source })?;
    let devices: BTreeMap<IpAddr, u32> =
        addresses.iter().filter_map(|message| Some((own_address(message)?, message.header.index))).collect();
    let device = devices.get(&address);
    let link = links.iter().find(|link| Some(&link.header.index) == device);
    let found = link.and_then(|link| Some((name_of(link)?, mtu_of(link)?)));
    found.ok_or_else(|| UplinkError::Absent { address, existing: devices.into_keys().collect() })
}

fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => found = Some(*address),
            _ => {}
        }
    }
    found
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn mtu_of(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// Prefixes that this node already routes and that are not the mesh's: its networks must stay clear of them.
/// Default routes and those that mean something on one link only are left out.
pub async fn foreign_routes() -> Vec<IpNet> {
    let listed = async {
        let handle = connect()?;
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            // That of local addresses has the VIPs of all services.
            filter.header.table = RouteHeader::RT_TABLE_MAIN;
            let found: Result<Vec<_>, _> = handle.route().get(filter).execute().try_collect().await;
            match found {
                Ok(found) => routes.extend(found),
                // A kernel without IPv6.
                Err(_) if family == AddressFamily::Inet6 => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(routes)
    };
    match listed.await {
        Ok(routes) => routes.iter().filter_map(foreign).collect::<BTreeSet<_>>().into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list this node's routes: a network may come to overlap one of them");
            Vec::new()
        }
    }
}

fn foreign(message: &RouteMessage) -> Option<IpNet> {
    let mut table = u32::from(message.header.table);
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(RouteAddress::Inet(found)) => address = Some(IpAddr::V4(*found)),
            RouteAttribute::Destination(RouteAddress::Inet6(found)) => address = Some(IpAddr::V6(*found)),
            _ => {}
        }
    }
    // What ICMP taught, and what is cached, is no decision of anybody's.
    let learned = message.header.protocol == RouteProtocol::IcmpRedirect
        || message.header.flags.contains(RouteFlags::Cloned);
    let net = IpNet::new(address?, message.header.destination_prefix_length).ok()?;
    let elsewhere =
        table != u32::from(RouteHeader::RT_TABLE_MAIN) || message.header.protocol == PROTOCOL || learned;
    (!elsewhere && net.prefix_len() > 0 && !of_one_link(net.addr())).then_some(net)
}

fn of_one_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_multicast() || a.is_link_local() || a.is_loopback() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_multicast() || a.is_unicast_link_local() || a.is_loopback(),
    }
}

fn connect() -> io::Result<Handle> {
    let (mut connection, handle, _) = rtnetlink::new_connection()?;
    // The kernel leaves out of a list what is not asked for; older ones do not, and nothing depends on it.
    let _ = connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true);
    #[expect(clippy::disallowed_methods, reason = "it ends by itself, with its last handle")]
    tokio::spawn(connection);
    Ok(handle)
}

/// Every TCP port that is listened on and every UDP port that takes packets from anybody.
pub async fn listeners() -> BTreeSet<Listener> {
    let mut listeners = BTreeSet::new();
    let mut tables = vec![("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    match crate::dataplane::ebpf::listening() {
        Ok(all) => listeners.extend(all.into_iter().map(|at| Listener {
            protocol: Protocol::Tcp,
            port: at.port(),
            address: at.ip(),
        })),
        // A kernel without the sockets' diagnosis.
        Err(_) => tables.extend([("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp)]),
    }
    for (table, protocol) in tables {
        // Of this thread's namespace: `/proc/net` is that of the process's first thread.
        let path = format!("/proc/thread-self/net/{table}");
        match std::fs::read_to_string(&path) {
            Ok(text) => listeners.extend(parse_sockets(&text, protocol)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path, %error, "cannot list this node's own listening ports"),
        }
    }
    listeners
}

/// The state of a TCP socket that listens (kernel include/net/tcp_states.h).
const TCP_LISTEN: &str = "0A";
/// The state of a UDP socket without a peer: `TCP_CLOSE`.
const UDP_UNCONNECTED: &str = "07";

/// Reads a table of sockets (proc(5), `/proc/net/tcp`).
pub fn parse_sockets(text: &str, protocol: Protocol) -> impl Iterator<Item = Listener> {
    let state = match protocol {
        Protocol::Tcp => TCP_LISTEN,
        Protocol::Udp => UDP_UNCONNECTED,
    };
    text.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _remote) = (fields.next()?, fields.next()?);
        if fields.next()? != state {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        Some(Listener {
            protocol,
            port: u16::from_str_radix(port, 16).ok()?,
            address: parse_address(address)?,
        })
    })
}

/// Addresses are printed as 32-bit words of this machine's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.as_chunks_mut().0.copy_from_slice(&words);
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
