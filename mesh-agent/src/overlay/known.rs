//! **Effect.** What the kernel has of ours, followed through a round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
        let mut routes = BTreeMap::new();
        let mut addresses = BTreeSet::new();
        for (net, route) in &want.routes {
            if is_address(net.addr(), route) {
                match self.devices.get(VTEP_DEVICE) {
                    Some(&device) => _ = addresses.insert((device, net.addr())),
                    None => applied
                        .record(format!("route {net}"), Err(format!("device {VTEP_DEVICE} is not there"))),
                }
                continue;
            }
            match route::resolve(*net, route, &self.devices, &want.peers) {
                Ok((key, path)) => _ = routes.insert(key, path),
                Err(error) => {
                    // Neither made nor removed while its device is missing.
                    self.routes.retain(|key, _| key.net != *net);
                    applied.record(format!("route {net}"), Err(error));
                }
            }
        }
        let unasked = applied.errors.len();
        let fresh: Vec<_> = addresses.difference(&self.addresses).copied().collect();
        for (device, address) in fresh {
            let result = kernel.put_address(device, address, true).await;
            if result.is_ok() {
                self.addresses.insert((device, address));
            }
            applied.record(format!("address {address}"), result);
        }
        note(applied, settle::put_neighbours(kernel, &mut self.neighbours, &neighbours).await);
        note(applied, settle::put_routes(kernel, &mut self.routes, &routes).await);
        note(applied, settle::remove_routes(kernel, &mut self.routes, &routes).await);
        note(applied, settle::remove_neighbours(kernel, &mut self.neighbours, &neighbours).await);
        let stale: Vec<_> = self.addresses.difference(&addresses).copied().collect();
        for (device, address) in stale {
            let result = kernel.remove_address(device, address).await;
            if result.is_ok() {
                self.addresses.remove(&(device, address));
            }
            applied.record(format!("address {address}"), result);
        }
        applied.errors.len() == unasked
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
