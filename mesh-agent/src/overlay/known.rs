//! **Effect.** What the kernel has of ours, followed through a round.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::model::SharedMap;
use mesh_core::plan::{Endpoint, Mac, Overlay, Route, VTEP_DEVICE};

use super::kernel::{Kernel, KernelError};
use super::{neighbour, note, route, settle};
use crate::plane::Applied;

/// What the kernel has of ours.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Our devices' indexes, by name.
    pub(super) devices: BTreeMap<String, u32>,
    /// Connections that are as wanted.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
    /// On the tunnel device, with its index.
    addresses: BTreeSet<(u32, IpAddr)>,
    neighbours: BTreeMap<neighbour::Key, Mac>,
    routes: BTreeMap<route::Key, route::Path>,
    /// All that was asked for and could be; none: nothing was yet.
    asked: Option<Asked>,
}

/// What routes come from.
#[derive(Debug)]
struct Asked {
    routes: SharedMap<IpNet, Route>,
    peers: BTreeMap<IpAddr, Mac>,
    devices: BTreeMap<String, u32>,
}

/// What the kernel has of what is looked at.
#[derive(Debug, Default)]
struct There {
    routes: BTreeMap<route::Key, route::Path>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl Known {
    /// Looks at what is on our devices, and at our routes.
    pub(super) async fn observe(&mut self, kernel: &Kernel) -> Result<(), KernelError> {
        let ours: BTreeSet<u32> = self.devices.values().copied().collect();
        let neighbours = kernel.neighbours().await?;
        self.neighbours = neighbours
            .iter()
            .filter_map(neighbour::decode)
            .filter(|(key, _)| ours.contains(&key.device))
            .collect();
        self.routes = kernel.routes().await?.iter().filter_map(route::decode).collect();
        self.addresses.clear();
        if let Some(&device) = self.devices.get(VTEP_DEVICE) {
            let marked = kernel.addresses(device).await?.into_iter().filter(|(_, ours)| *ours);
            self.addresses = marked.map(|(net, _)| (device, net.addr())).collect();
        }
        Ok(())
    }

    /// Everything that lives on devices. Whether the kernel did all that was asked of it; what could not be asked,
    /// for its device is missing, does not count.
    pub(super) async fn settle(&mut self, kernel: &Kernel, want: &Overlay, applied: &mut Applied) -> bool {
        let neighbours = neighbour::resolve(want, &self.devices);
        let (mut routes, mut addresses) = (BTreeMap::new(), BTreeSet::new());
        let mut asked =
            Asked { routes: want.routes.clone(), peers: want.peers.clone(), devices: self.devices.clone() };
        let (mut there, todo) = self.take_changed(want);
        for (net, route) in todo {
            let resolved = if is_address(net.addr(), route) {
                let device = self.devices.get(VTEP_DEVICE).copied();
                let device = device.ok_or_else(|| format!("device {VTEP_DEVICE} is not there"));
                device.map(|device| _ = addresses.insert((device, net.addr())))
            } else {
                let resolved = route::resolve(*net, route, &self.devices, &want.peers);
                resolved.map(|(key, path)| _ = routes.insert(key, path))
            };
            if let Err(error) = resolved {
                // Neither made nor removed while its device is missing, and asked for again.
                there.routes.retain(|key, _| key.net != *net);
                asked.routes.remove(net);
                applied.record(format!("route {net}"), Err(error));
            }
        }
        let unasked = applied.errors.len();
        let fresh: Vec<_> = addresses.difference(&there.addresses).copied().collect();
        for (device, address) in fresh {
            let result = kernel.put_address(device, address, true).await;
            if result.is_ok() {
                there.addresses.insert((device, address));
            }
            applied.record(format!("address {address}"), result);
        }
        note(applied, settle::put_neighbours(kernel, &mut self.neighbours, &neighbours).await);
        note(applied, settle::put_routes(kernel, &mut there.routes, &routes).await);
        note(applied, settle::remove_routes(kernel, &mut there.routes, &routes).await);
        note(applied, settle::remove_neighbours(kernel, &mut self.neighbours, &neighbours).await);
        let stale: Vec<_> = there.addresses.difference(&addresses).copied().collect();
        for (device, address) in stale {
            let result = kernel.remove_address(device, address).await;
            if result.is_ok() {
                there.addresses.remove(&(device, address));
            }
            applied.record(format!("address {address}"), result);
        }
        self.routes.extend(there.routes);
        self.addresses.extend(there.addresses);
        self.asked = Some(asked);
        applied.errors.len() == unasked
    }

    /// The routes that may not be as wanted, and what the kernel has in their place, which is taken out: all, unless
    /// those of the last round were asked for of the same devices and nodes.
    fn take_changed<'a>(&mut self, want: &'a Overlay) -> (There, Vec<(&'a IpNet, &'a Route)>) {
        let asked = self.asked.take();
        let Some(asked) = asked.filter(|asked| asked.peers == want.peers && asked.devices == self.devices)
        else {
            let (routes, addresses) = (take(&mut self.routes), take(&mut self.addresses));
            return (There { routes, addresses }, want.routes.iter().collect());
        };
        let (mut there, mut todo) = (There::default(), Vec::new());
        for (net, _, _) in asked.routes.changes(&want.routes) {
            for key in route::Key::all(*net) {
                there.routes.extend(self.routes.remove_entry(&key));
            }
            there
                .addresses
                .extend(self.addresses.extract_if(.., |(_, address)| IpNet::from(*address) == *net));
            todo.extend(want.routes.get_key_value(net));
        }
        (there, todo)
    }

    /// The veths of tasks that are not wanted any more; their other ends go with them.
    pub(super) async fn remove_endpoints(&mut self, kernel: &Kernel, want: &Overlay, applied: &mut Applied) {
        let stale: Vec<_> = self.devices.keys().filter(|name| *name != VTEP_DEVICE).cloned().collect();
        for name in stale.into_iter().filter(|name| !want.endpoints.contains_key(name)) {
            self.remove_device(kernel, &name, applied).await;
        }
    }

    pub(super) async fn remove_vtep(&mut self, kernel: &Kernel, want: &Overlay, applied: &mut Applied) {
        if want.vtep.is_none() {
            self.remove_device(kernel, VTEP_DEVICE, applied).await;
        }
    }

    async fn remove_device(&mut self, kernel: &Kernel, name: &str, applied: &mut Applied) {
        let Some(&index) = self.devices.get(name) else { return };
        let result = kernel.remove_device(name, index).await;
        if result.is_ok() {
            self.devices.remove(name);
        }
        applied.record(format!("device {name}"), result);
    }
}

/// A local route suffices for an IPv4 address to be a source; IPv6 wants a real address
/// (kernel net/ipv6/route.c, "Invalid source address"). The node's own are those that name no other source.
fn is_address(address: IpAddr, route: &Route) -> bool {
    address.is_ipv6() && *route == Route::Local { source: None }
}
