//! **Effect.** What a task sees: its end of the veth, its addresses, and the way out.
//!
//! Addresses have full length, so there is no link to look for neighbours on: everything goes to one gateway
//! that no device has as an address, whose MAC is that of the host's end.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mesh_core::plan::{Endpoint, Mac};
use rtnetlink::packet_route::link::LinkAttribute;

use super::device::{self, Device, Kind};
use super::kernel::{Kernel, KernelError};
use super::neighbour;
use super::route::{self, MAIN, Path};
use super::settle;
use super::sysctl;
use crate::netns::Netns;

const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Whether both are ends of one veth. Indexes are of their own namespaces, so one alone may mean another's.
pub(super) fn is_end_of(end: &Device, host: &Device) -> bool {
    end.kind == Kind::Veth && end.peer == Some(host.index) && host.peer == Some(end.index)
}

/// Makes the inside as wanted. Whether anything had to be done; the first failure, after trying everything.
pub(super) async fn furnish(
    kernel: &Kernel,
    netns: &Netns,
    want: &Endpoint,
    end: &Device,
) -> Result<bool, String> {
    let mut steps = Vec::new();
    if want.addresses.v6.is_some() {
        let settings = sysctl::apply(netns, &sysctl::of_inside(&want.inside), kernel.drift());
        steps.extend(settings.into_iter().map(|(_, done)| done));
    }
    steps.extend(devices_up(kernel, want, end).await);
    // Only now: a device that goes up or down loses routes and IPv6 addresses.
    steps.extend(addresses(kernel, want, end.index).await);
    steps.extend(neighbours(kernel, want, end.index).await);
    steps.extend(routes(kernel, want, end.index).await);
    let changed = !steps.is_empty();
    steps.into_iter().collect::<Result<Vec<()>, String>>().map(|_| changed)
}

type Steps = Vec<Result<(), String>>;

fn text<T>(result: Result<T, KernelError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

async fn devices_up(kernel: &Kernel, want: &Endpoint, end: &Device) -> Steps {
    let mut steps = Vec::new();
    match kernel.device("lo").await {
        Ok(Some(lo)) if !lo.up => {
            let mut message = device::change(lo.index);
            device::up(&mut message);
            steps.push(text(kernel.change_device("lo", message).await));
        }
        Ok(_) => {}
        Err(error) => steps.push(Err(error.to_string())),
    }
    let mut message = device::change(end.index);
    if end.mac != Some(want.mac) {
        message.attributes.push(LinkAttribute::Address(want.mac.0.to_vec()));
    }
    if end.mtu != want.mtu {
        message.attributes.push(LinkAttribute::Mtu(want.mtu));
    }
    if !end.up {
        device::up(&mut message);
    }
    if message != device::change(end.index) {
        steps.push(text(kernel.change_device(&want.inside, message).await));
    }
    steps
}

async fn addresses(kernel: &Kernel, want: &Endpoint, device: u32) -> Steps {
    let have = match kernel.addresses(device).await {
        Ok(have) => have,
        Err(error) => return vec![Err(error.to_string())],
    };
    let wanted: Vec<IpNet> = want.addresses.addresses().map(IpNet::from).collect();
    let mut steps = Vec::new();
    for net in &wanted {
        if !have.iter().any(|(there, _)| there == net) {
            steps.push(text(kernel.put_address(device, net.addr(), false).await));
        }
    }
    // Those without our mark are the task's own.
    for (net, ours) in have {
        if ours && !wanted.contains(&net) {
            steps.push(text(kernel.remove_address(device, net.addr()).await));
        }
    }
    steps
}

async fn neighbours(kernel: &Kernel, want: &Endpoint, device: u32) -> Steps {
    let have: BTreeMap<_, _> = match kernel.neighbours().await {
        Ok(found) => found.iter().filter_map(neighbour::decode).collect(),
        Err(error) => return vec![Err(error.to_string())],
    };
    let v6 = want.addresses.v6.map(|_| IpAddr::V6(GATEWAY_V6));
    let mut steps = Vec::new();
    for address in std::iter::once(IpAddr::V4(GATEWAY_V4)).chain(v6) {
        let key = neighbour::Key { device, address };
        if have.get(&key) != Some(&Mac::HOST_END) {
            steps.push(text(kernel.put_neighbour(&key, Mac::HOST_END).await));
        }
    }
    steps
}

async fn routes(kernel: &Kernel, want: &Endpoint, device: u32) -> Steps {
    let mut have: BTreeMap<_, _> = match kernel.routes().await {
        Ok(found) => found.iter().filter_map(route::decode).collect(),
        Err(error) => return vec![Err(error.to_string())],
    };
    // The task's other connections look after theirs.
    have.retain(|_, path| path.device == device);
    let wanted: BTreeMap<_, _> = want
        .routes
        .iter()
        .filter(|net| net.addr().is_ipv4() || want.addresses.v6.is_some())
        .map(|net| {
            let gateway = if net.addr().is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() };
            (route::Key::new(MAIN, *net), Path::through(device, Some(gateway), None))
        })
        .collect();
    let mut steps = settle::put_routes(kernel, &mut have, &wanted).await;
    steps.extend(settle::remove_routes(kernel, &mut have, &wanted).await);
    steps.into_iter().map(|(_, result)| result).collect()
}
