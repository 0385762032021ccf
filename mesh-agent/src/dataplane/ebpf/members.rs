//! **Effect.** Which network namespaces are in which network, as programs at sockets know them.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;

use mesh_core::model::Origin;
use mesh_core::plan::Balance;
use mesh_ebpf::abi::NetnsKey;

use super::books::Facts;
use super::syscall::netns_cookie;
use crate::netns::{Netns, NetnsError};

/// Namespaces of this node's tasks, and the node's own.
#[derive(Debug)]
pub(super) struct Members {
    own: u64,
    /// By device: it is made anew for another namespace.
    tasks: BTreeMap<u32, (Origin, u64)>,
}

impl Members {
    /// Of the node whose namespace the caller is in.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { own: cookie()?, tasks: BTreeMap::new() })
    }

    /// All entries of `NETNS`.
    pub(super) fn entries(&mut self, want: &Balance, facts: &Facts) -> BTreeMap<NetnsKey, u32> {
        let mut entries = BTreeMap::from([(NetnsKey::new(self.own, NetnsKey::NODE), 0)]);
        let mut known = BTreeMap::new();
        for (name, gate) in &want.ports {
            let (Some(device), Some(origin)) = (facts.devices.get(name), want.origins.get(name)) else {
                continue;
            };
            let cookie = match self.tasks.remove(device) {
                Some((there, cookie)) if there == *origin => cookie,
                // Whose namespace is gone has no sockets; the overlay tells of it.
                _ => match Netns::of_origin(origin).and_then(|netns| netns.run(cookie)) {
                    Ok(Ok(cookie)) => cookie,
                    _ => continue,
                },
            };
            known.insert(*device, (origin.clone(), cookie));
            entries.insert(NetnsKey::new(cookie, gate.vni.0), *device);
        }
        self.tasks = known;
        entries
    }

    /// The namespace with a cookie; none: nobody's any more.
    pub(super) fn netns(&self, cookie: u64) -> Option<Result<Netns, NetnsError>> {
        if cookie == self.own {
            return Some(Netns::own());
        }
        let (origin, _) = self.tasks.values().find(|(_, known)| *known == cookie)?;
        Some(Netns::of_origin(origin))
    }
}

/// That of the namespace that the caller is in.
pub(super) fn cookie() -> io::Result<u64> {
    // Any socket tells; this one needs no address of the namespace's.
    netns_cookie(UdpSocket::bind("0.0.0.0:0")?)
}
