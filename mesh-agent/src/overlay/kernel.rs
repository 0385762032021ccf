//! **Effect.** Requests to the kernel over route netlink (rtnetlink(7)), in one namespace.
//!
//! Every request has a time limit, says in its error what was being done, and keeps the kernel's own words. To
//! remove what is not there is success: somebody was faster.

use std::net::IpAddr;

use futures_util::{Stream, StreamExt, TryStreamExt};
use ipnet::IpNet;
use mesh_core::plan::Mac;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

mod error;

pub(super) use error::KernelError;
use error::timed;

use super::device::Device;
use super::neighbour;
use super::route::{self, PROTOCOL};
use crate::netns::{Netns, NetnsError};
use crate::plane::{DIFFERS, Drift, MISSING, UNPLANNED};

/// What is no error when something is removed.
const GONE: &[Errno] = &[Errno::ENOENT, Errno::ESRCH, Errno::ENODEV, Errno::ENXIO, Errno::EADDRNOTAVAIL];

/// A connection to the kernel from inside one namespace.
pub(super) struct Kernel {
    handle: Handle,
    drift: Option<Drift>,
}

impl Kernel {
    /// With somewhere to note what would be written, nothing is.
    pub(super) fn open(netns: &Netns, drift: Option<Drift>) -> Result<Self, NetnsError> {
        Ok(Self { handle: netns.connect()?, drift })
    }

    /// Where differences are noted, if nothing is to be written.
    pub(super) fn drift(&self) -> Option<&Drift> {
        self.drift.as_ref()
    }

    /// Does what changes the kernel: `object` is `why`, and `what` mends it.
    async fn write(
        &self,
        (object, why): (String, &str),
        what: String,
        answer: impl Future<Output = Result<(), rtnetlink::Error>>,
    ) -> Result<(), KernelError> {
        let Some(drift) = &self.drift else { return timed(what, answer).await };
        drift.note(object, why);
        Ok(())
    }

    pub(super) async fn devices(&self) -> Result<Vec<Device>, KernelError> {
        let links = collect("list the devices", self.handle.link().get().execute()).await?;
        Ok(links.into_iter().filter_map(Device::of).collect())
    }

    pub(super) async fn device(&self, name: &str) -> Result<Option<Device>, KernelError> {
        let found =
            collect(format!("look for device {name}"), self.handle.link().get().match_name(name).execute());
        match found.await {
            Ok(links) => Ok(links.into_iter().find_map(Device::of)),
            Err(error) if error.is(GONE) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn create_device(&self, name: &str, message: LinkMessage) -> Result<(), KernelError> {
        if self.drift.is_some() {
            return Err(KernelError::Missing { what: format!("device {name}") });
        }
        timed(format!("create device {name}"), self.handle.link().add(message).execute()).await
    }

    pub(super) async fn change_device(&self, name: &str, message: LinkMessage) -> Result<(), KernelError> {
        let object = (format!("device {name}"), DIFFERS);
        self.write(object, format!("change device {name}"), self.handle.link().change(message).execute())
            .await
    }

    pub(super) async fn remove_device(&self, name: &str, index: u32) -> Result<(), KernelError> {
        let object = (format!("device {name}"), UNPLANNED);
        let removal = self.handle.link().del(index).execute();
        gone_is_removed(self.write(object, format!("remove device {name}"), removal).await)
    }

    /// All of our routes, in all tables, of both families.
    pub(super) async fn routes(&self) -> Result<Vec<RouteMessage>, KernelError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.protocol = PROTOCOL;
            match collect("list the routes", self.handle.route().get(filter).execute()).await {
                Ok(found) => routes.extend(found),
                Err(error) if lacks_family(&error, family) => {}
                Err(error) => return Err(error),
            }
        }
        // Kernels before 4.20 do not filter.
        routes.retain(|route| route.header.protocol == PROTOCOL);
        Ok(routes)
    }

    /// Adds a route. Never replaces one, whoever's it is, unless told to.
    pub(super) async fn put_route(
        &self,
        key: &route::Key,
        message: RouteMessage,
        replace: bool,
    ) -> Result<(), KernelError> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message));
        request.header.flags = NLM_F_CREATE | if replace { NLM_F_REPLACE } else { NLM_F_EXCL };
        let object = (format!("route {}", key.net), if replace { DIFFERS } else { MISSING });
        self.write(object, format!("route {}", key.net), self.request(request)).await
    }

    pub(super) async fn remove_route(&self, key: &route::Key) -> Result<(), KernelError> {
        let request = NetlinkMessage::from(RouteNetlinkMessage::DelRoute(route::removal(key)));
        let object = (format!("route {}", key.net), UNPLANNED);
        let removal = self.request(request);
        gone_is_removed(self.write(object, format!("remove the route {}", key.net), removal).await)
    }

    /// All permanent neighbours.
    pub(super) async fn neighbours(&self) -> Result<Vec<NeighbourMessage>, KernelError> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request = self.handle.neighbours().get().set_address_family(family);
            match collect("list the neighbours", request.execute()).await {
                Ok(found) => neighbours.extend(found),
                Err(error) if lacks_family(&error, family) => {}
                Err(error) => return Err(error),
            }
        }
        neighbours.retain(|neighbour| neighbour.header.state == NeighbourState::Permanent);
        Ok(neighbours)
    }

    pub(super) async fn put_neighbour(&self, key: &neighbour::Key, mac: Mac) -> Result<(), KernelError> {
        let request =
            self.handle.neighbours().add(key.device, key.address).link_layer_address(&mac.0).replace();
        let object = (format!("neighbour {}", key.address), DIFFERS);
        self.write(object, format!("make {mac} the neighbour {}", key.address), request.execute()).await
    }

    pub(super) async fn remove_neighbour(&self, key: &neighbour::Key) -> Result<(), KernelError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family_of(key.address);
        message.header.ifindex = key.device;
        message.attributes.push(NeighbourAttribute::Destination(match key.address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }));
        let request = self.handle.neighbours().del(message);
        let object = (format!("neighbour {}", key.address), UNPLANNED);
        let removal = request.execute();
        gone_is_removed(self.write(object, format!("remove the neighbour {}", key.address), removal).await)
    }

    /// Addresses of one device, with whether they carry our mark.
    pub(super) async fn addresses(&self, device: u32) -> Result<Vec<(IpNet, bool)>, KernelError> {
        let request = self.handle.address().get().set_link_index_filter(device);
        let found = collect("list the addresses", request.execute()).await?;
        Ok(found.iter().filter(|message| message.header.index == device).filter_map(address_of).collect())
    }

    /// Adds an address with our mark. With `only_when_named` the kernel never chooses it as a source by itself.
    pub(super) async fn put_address(
        &self,
        device: u32,
        address: IpAddr,
        only_when_named: bool,
    ) -> Result<(), KernelError> {
        let prefix = IpNet::from(address).prefix_len();
        let mut request = self.handle.address().add(device, address, prefix);
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(u8::from(PROTOCOL))));
        // Nobody else has it: no need to ask the link, and no route of its own.
        attributes.push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        if only_when_named {
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_preferred = 0;
            lifetime.ifa_valid = u32::MAX;
            attributes.push(AddressAttribute::CacheInfo(lifetime));
        }
        let object = (format!("address {address}"), MISSING);
        match self.write(object, format!("add address {address}"), request.execute()).await {
            Err(error) if error.is(&[Errno::EEXIST]) => Ok(()),
            result => result,
        }
    }

    pub(super) async fn remove_address(&self, device: u32, address: IpAddr) -> Result<(), KernelError> {
        let mut message = AddressMessage::default();
        message.header.family = family_of(address);
        message.header.index = device;
        message.header.prefix_len = IpNet::from(address).prefix_len();
        message.attributes.push(AddressAttribute::Local(address));
        let request = self.handle.address().del(message);
        let object = (format!("address {address}"), UNPLANNED);
        let removal = request.execute();
        gone_is_removed(self.write(object, format!("remove address {address}"), removal).await)
    }

    async fn request(
        &self,
        mut message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<(), rtnetlink::Error> {
        message.header.flags |= NLM_F_REQUEST | NLM_F_ACK;
        let mut answers = self.handle.clone().request(message)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(rtnetlink::Error::NetlinkError(error));
            }
        }
        Ok(())
    }
}

pub(super) fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A device's own address with its length; link-local ones are the kernel's business.
fn address_of(message: &AddressMessage) -> Option<(IpNet, bool)> {
    if message.header.scope != AddressScope::Universe {
        return None;
    }
    // IPv4 has the peer's in `Address` on point-to-point devices; IPv6 has no `Local` on others.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let plain = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(u8::from(PROTOCOL)));
    let net = IpNet::new(local.or(plain)?, message.header.prefix_len).ok()?;
    Some((net, message.attributes.contains(&ours)))
}

/// A kernel without IPv6 refuses to list it.
fn lacks_family(error: &KernelError, family: AddressFamily) -> bool {
    family == AddressFamily::Inet6
        && error.is(&[Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT, Errno::EPROTONOSUPPORT])
}

fn gone_is_removed(result: Result<(), KernelError>) -> Result<(), KernelError> {
    match result {
        Err(error) if error.is(GONE) => Ok(()),
        other => other,
    }
}

async fn collect<T>(
    what: impl Into<String>,
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, KernelError> {
    timed(what.into(), answers.try_collect()).await
}
