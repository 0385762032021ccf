//! **Decision.** Which names a snapshot of the world gives each network: built once per change, so that a query
//! costs a look-up and no walk over services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{NetworkNames, Target, Zone};
use crate::model::{Attachment, EndpointMode, NetworkId, NodeId, Service, Snapshot, Task};

impl Zone {
    /// The names of a snapshot, as they are for tasks of a node.
    pub fn build(world: &Snapshot, here: &NodeId) -> Self {
        let mut networks: BTreeMap<NetworkId, NetworkNames> = world
            .networks
            .values()
            .map(|n| (n.id.clone(), NetworkNames { name: n.name.to_string(), ..NetworkNames::default() }))
            .collect();
        let mut known = BTreeSet::new();
        let mut tasks = world.tasks_by_service();
        for service in world.services.values() {
            let mut tasks = tasks.remove(&service.id).unwrap_or_default();
            let turnout = world.turnout(service, &tasks);
            let told = |task: &Task| service.discovery.publish_not_ready && world.is_published(task);
            tasks.retain(|task| world.serves(task, &turnout) || told(task));
            for attachment in &service.networks {
                known.insert(service.name.to_string());
                known.extend(attachment.aliases.iter().map(ToString::to_string));
                if let Some(names) = networks.get_mut(&attachment.network) {
                    names.add_service(service, attachment, &tasks, here);
                }
            }
        }
        let mut tasks: Vec<_> = world.tasks.values().filter(|task| !task.state.is_terminal()).collect();
        // While a slot changes hands it has two tasks: its name means the one that serves, else the newer.
        tasks.sort_by_cached_key(|task| {
            (!world.in_balance(task), std::cmp::Reverse((task.created, task.state)), task.id.clone())
        });
        for task in tasks {
            let name = world.task_name(task);
            for network in task.addresses.keys() {
                if let Some(names) = networks.get_mut(network) {
                    names.add_task(task, &name, network);
                }
            }
            known.extend(task.name.as_ref().map(ToString::to_string));
        }
        let subnets = world.networks.values().flat_map(|network| network.subnets()).collect();
        let names = networks.values().map(|network| network.name.clone()).collect();
        Self {
            networks: Arc::new(networks),
            known: Arc::new(known),
            network_names: Arc::new(names),
            subnets: Arc::new(subnets),
        }
    }
}

impl NetworkNames {
    fn add_service(
        &mut self,
        service: &Service,
        attachment: &Attachment,
        ready: &[&Arc<Task>],
        here: &NodeId,
    ) {
        let there = || ready.iter().filter_map(|task| Some((task, task.addresses.get(&attachment.network)?)));
        let all: Arc<[IpAddr]> = there().flat_map(|(_, address)| address.addresses()).collect();
        let near: Arc<[IpAddr]> = there()
            .filter(|(task, _)| task.node == *here)
            .flat_map(|(_, address)| address.addresses())
            .collect();
        let nearest = if near.is_empty() { Arc::clone(&all) } else { near };
        let whole: Arc<[IpAddr]> = match service.mode {
            EndpointMode::Vip => attachment.vip.iter().flat_map(|vip| vip.addresses()).collect(),
            EndpointMode::Dnsrr => Arc::clone(&all),
        };
        let largest = ready.iter().map(|task| task.weight).max().unwrap_or_default();
        let targets: Arc<[Target]> = there()
            .map(|(task, address)| Target {
                name: format!("{}.{}.{}.{}", service.name, task.slot, task.id, self.name),
                weight: srv_weight(task.weight, largest),
                addresses: address.addresses().collect(),
            })
            .collect();
        for name in std::iter::once(&service.name).chain(&attachment.aliases) {
            // A service's own name wins over another's alias, whichever comes first.
            if *name == service.name || !self.forward.contains_key(name.as_str()) {
                self.forward.insert(name.to_string(), Arc::clone(&whole));
                self.forward.insert(format!("tasks.{name}"), Arc::clone(&all));
                self.forward.insert(format!("nearest.{name}"), Arc::clone(&nearest));
                self.targets.insert(name.to_string(), Arc::clone(&targets));
                self.ports.insert(name.to_string(), service.discovery.port_names.clone());
            }
        }
        for address in attachment.vip.iter().flat_map(|vip| vip.addresses()) {
            self.reverse.insert(address, format!("{}.{}", service.name, self.name));
        }
    }

    /// Adds a task's names; of several tasks with one name the first that is added has it.
    fn add_task(&mut self, task: &Task, name: &str, network: &NetworkId) {
        let addresses: Arc<[IpAddr]> =
            task.addresses.get(network).into_iter().flat_map(|address| address.addresses()).collect();
        for address in addresses.iter() {
            self.reverse.entry(*address).or_insert_with(|| format!("{name}.{}", self.name));
        }
        self.forward.insert(format!("{name}.{}", task.id), Arc::clone(&addresses));
        self.forward.entry(name.to_owned()).or_insert(addresses);
    }
}

/// A task's weight as SRV records have it (RFC 2782): times 256, or as many times as the service's largest has room for.
/// HAProxy, which knows weights up to 256, divides by 256 and rounds up: it would take all small weights for 1.
fn srv_weight(weight: u16, largest: u16) -> u16 {
    weight * (u16::MAX / largest.max(1)).min(256)
}

#[cfg(test)]
mod tests {
    use super::srv_weight;

    /// As HAProxy 2.6 reads it (src/resolvers.c).
    fn haproxy(weight: u16) -> u32 {
        u32::from(weight).div_ceil(256)
    }

    #[test]
    fn weights_keep_their_ratios_on_their_way_to_haproxy() {
        for largest in [1, 3, 100, 255] {
            for weight in 0..=largest {
                assert_eq!(haproxy(srv_weight(weight, largest)), u32::from(weight), "of {largest}");
            }
        }
        assert_eq!([300, 600].map(|weight| haproxy(srv_weight(weight, 600))), [128, 256]);
        for largest in 1..=u16::MAX {
            assert!(haproxy(srv_weight(largest, largest)) <= 256 && srv_weight(1, largest) > 0);
        }
        assert_eq!(srv_weight(0, 0), 0);
    }
}
