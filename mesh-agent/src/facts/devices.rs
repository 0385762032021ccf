//! **Fact.** That a device of the node, or an address, came or went.
//!
//! What it is like is looked at by whoever has to do with it: this only says when to look, so that a new device does
//! not wait for the next sweep. The mesh's own devices are not told of: who makes them knows.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use futures_util::StreamExt;
use mesh_core::plan::DEVICE_PREFIX;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage as Route;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Says to `changed` whenever there is something to look at, in the namespace of the caller, until told to stop.
pub async fn run(changed: watch::Sender<()>, stop: CancellationToken) {
    if let Err(error) = stop.run_until_cancelled(listen(&changed)).await.unwrap_or(Ok(())) {
        warn!(%error, "new devices of this node are found by the next sweep only");
        stop.cancelled().await;
    }
}

async fn listen(changed: &watch::Sender<()>) -> io::Result<()> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, _handle, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    #[expect(clippy::disallowed_methods, reason = "it ends by itself, with its last handle")]
    tokio::spawn(connection);
    let mut seen = Seen::default();
    while let Some((message, _)) = messages.next().await {
        if seen.note(&message) {
            changed.send_replace(());
        }
    }
    Err(io::Error::other("the kernel's messages have ended"))
}

/// What was told already. The kernel tells of a device whenever it goes up or down, and of addresses that are renewed.
#[derive(Debug, Default)]
struct Seen {
    names: BTreeMap<u32, String>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl Seen {
    /// Whether a message says something new.
    fn note(&mut self, message: &NetlinkMessage<Route>) -> bool {
        match &message.payload {
            NetlinkPayload::InnerMessage(Route::NewLink(link)) => self.came(link),
            NetlinkPayload::InnerMessage(Route::DelLink(link)) => {
                self.addresses.retain(|(device, _)| *device != link.header.index);
                self.names.remove(&link.header.index).is_none_or(|name| !is_ours(&name))
            }
            NetlinkPayload::InnerMessage(Route::NewAddress(address)) => {
                place(address).is_some_and(|place| self.addresses.insert(place) && !self.is_ours(place.0))
            }
            NetlinkPayload::InnerMessage(Route::DelAddress(address)) => place(address).is_some_and(|place| {
                self.addresses.remove(&place);
                !self.is_ours(place.0)
            }),
            // Some were lost.
            NetlinkPayload::Overrun(_) => true,
            _ => false,
        }
    }

    fn came(&mut self, link: &LinkMessage) -> bool {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        let Some(name) = name else { return false };
        let ours = is_ours(&name);
        self.names.insert(link.header.index, name.clone()).as_ref() != Some(&name) && !ours
    }

    fn is_ours(&self, device: u32) -> bool {
        self.names.get(&device).is_some_and(|name| is_ours(name))
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(DEVICE_PREFIX)
}

fn place(message: &AddressMessage) -> Option<(u32, IpAddr)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    Some((message.header.index, address?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link
    }

    fn address(index: u32) -> AddressMessage {
        let mut address = AddressMessage::default();
        address.header.index = index;
        address.attributes.push(AddressAttribute::Address(IpAddr::from([192, 0, 2, 1])));
        address
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut seen = Seen::default();
        let mut told = |message: Route| seen.note(&NetlinkMessage::from(message));
        assert!(told(Route::NewLink(link(7, "eth1"))));
        assert!(!told(Route::NewLink(link(7, "eth1"))), "it went up");
        assert!(told(Route::NewAddress(address(7))));
        assert!(!told(Route::NewAddress(address(7))), "it was renewed");
        assert!(told(Route::DelAddress(address(7))) && told(Route::NewAddress(address(7))));
        assert!(told(Route::NewLink(link(7, "eth2"))), "it has another name");
        assert!(told(Route::DelLink(link(7, "eth2"))));
        assert!(told(Route::NewLink(link(8, "eth2"))), "another one has the name");
        assert!(told(Route::NewAddress(address(8))));
    }

    #[test]
    fn the_meshs_own_devices_are_not_told_of() {
        let mut seen = Seen::default();
        let mut told = |message: Route| seen.note(&NetlinkMessage::from(message));
        assert!(!told(Route::NewLink(link(9, "mesh0"))) && !told(Route::NewAddress(address(9))));
        assert!(!told(Route::DelAddress(address(9))) && !told(Route::DelLink(link(9, "mesh0"))));
    }
}
