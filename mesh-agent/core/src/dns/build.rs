//! **Decision.** Which names a snapshot of the world gives each network. A question costs a look-up and no walk over
//! services, and a change of one service puts in its own names alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Zone;
use super::names::{Attached, NetworkNames, Served};
use crate::liveness::{Masks, Verdict};
use crate::model::{
    Attachment, EndpointMode, Name, NetworkId, NodeId, Service, Snapshot, Task, TaskAddress, Turnout,
};
use crate::plan::leave_out;

/// What a service adds with its tasks, or a task without one.
#[derive(Debug, Default)]
pub(crate) struct Names {
    served: Vec<(NetworkId, Arc<Served>)>,
    /// And whether it serves.
    alone: Vec<(Arc<Task>, bool)>,
    /// Never asked upstream.
    known: BTreeSet<Name>,
}

impl Names {
    /// Of a service and all of its tasks, as they are for tasks of a node that does not hear some others.
    pub(crate) fn of_service(
        world: &Snapshot,
        here: &NodeId,
        service: &Service,
        tasks: &[Arc<Task>],
        turnout: &Turnout,
        masks: &BTreeMap<NodeId, Verdict>,
    ) -> Self {
        let all = service.discovery.publish_not_ready;
        let told = |task: &Task| all && world.is_published(task);
        let mut ready: Vec<&Arc<Task>> =
            tasks.iter().filter(|task| world.serves(task, turnout) || told(task)).collect();
        if !all {
            leave_out(masks, &mut ready, |task| &task.node);
        }
        let mut left: Vec<&Arc<Task>> = tasks.iter().filter(|task| !task.state.is_terminal()).collect();
        // While a slot changes hands it has two tasks: its name means the one that serves, else the newer.
        left.sort_by_cached_key(|task| {
            (task.slot, !world.in_balance(task), Reverse((task.created, task.state)), task.id.clone())
        });
        let mut names = Self::default();
        names.known.extend(left.iter().filter_map(|task| task.name.clone()));
        for attachment in &service.networks {
            names.known.insert(service.name.clone());
            names.known.extend(attachment.aliases.iter().cloned());
        }
        let mut networks: BTreeSet<&NetworkId> = left.iter().flat_map(|task| task.addresses.keys()).collect();
        networks.extend(service.networks.iter().map(|attachment| &attachment.network));
        for id in networks {
            let attached = service.attachment(id).map(|at| Attached::of(service, at, &ready, here));
            let tasks = left.iter().filter(|task| task.addresses.contains_key(id));
            let tasks: Vec<_> = tasks.map(|task| Arc::clone(task)).collect();
            let tasks = tasks.into();
            let (id, name) = (id.clone(), service.name.clone());
            names.served.push((id, Arc::new(Served { id: service.id.clone(), name, attached, tasks })));
        }
        names
    }

    /// Of a task whose service, if it says that it has one, is not known.
    pub(crate) fn add_alone(&mut self, world: &Snapshot, task: &Arc<Task>) {
        if !task.state.is_terminal() {
            self.alone.push((Arc::clone(task), world.in_balance(task)));
            self.known.extend(task.name.clone());
        }
    }
}

impl Attached {
    fn of(service: &Service, attachment: &Attachment, ready: &[&Arc<Task>], here: &NodeId) -> Self {
        let there = || ready.iter().filter_map(|task| Some((task, task.addresses.get(&attachment.network)?)));
        let addresses = |(_, address): (_, &TaskAddress)| address.addresses().collect::<Vec<_>>();
        let all: Arc<[IpAddr]> = there().flat_map(addresses).collect();
        let near: Arc<[IpAddr]> =
            there().filter(|(task, _)| task.node == *here).flat_map(addresses).collect();
        let nearest = if near.is_empty() { Arc::clone(&all) } else { near };
        let vip: Option<Vec<IpAddr>> = attachment.vip.map(|vip| vip.addresses().collect());
        let whole = match service.mode {
            EndpointMode::Vip => vip.iter().flatten().copied().collect(),
            EndpointMode::Dnsrr => Arc::clone(&all),
        };
        let (aliases, ports) = (attachment.aliases.clone(), service.discovery.port_names.clone());
        let ready: Vec<_> = there().map(|(task, _)| Arc::clone(task)).collect();
        let ready = ready.into();
        Self { aliases, whole, vip, all, nearest, ready, ports }
    }
}

impl Zone {
    /// The names of a snapshot, as they are for tasks of a node that hears all others.
    pub fn build(world: &Snapshot, here: &NodeId) -> Self {
        Self::build_where_heard(world, here, &Masks::default())
    }

    /// The same with what a node knows beside the records: tasks of others that it does not hear are not found where there are others.
    pub fn build_where_heard(world: &Snapshot, here: &NodeId, masks: &Masks) -> Self {
        let mut zone = Self::of_networks(world);
        for service in world.services.values() {
            let tasks = &*masks.noted(world.tasks.of(&service.id));
            let turnout = masks.turnout(world, service, tasks);
            zone.put(&Names::of_service(world, here, service, tasks, &turnout, &masks.nodes));
        }
        let mut names = Names::default();
        let known = |task: &Task| task.service.as_ref().is_some_and(|id| world.services.contains_key(id));
        world.tasks.values().filter(|task| !known(task)).for_each(|task| names.add_alone(world, task));
        zone.put(&names);
        zone
    }

    /// Networks without any name in them.
    pub(crate) fn of_networks(world: &Snapshot) -> Self {
        let networks = world.networks.values();
        let names =
            |network: &crate::model::Network| NetworkNames::of(network.id.clone(), network.name.clone());
        Self {
            networks: networks
                .clone()
                .map(|network| (network.id.clone(), Arc::new(names(network))))
                .collect(),
            known: Default::default(),
            network_names: Arc::new(networks.clone().map(|network| network.name.to_string()).collect()),
            subnets: Arc::new(networks.flat_map(|network| network.subnets()).collect()),
        }
    }

    /// Puts names in. Says whether an address was somebody else's, which the records forbid.
    pub(crate) fn put(&mut self, names: &Names) -> bool {
        let Names { served, alone, known } = names;
        let mut contested = false;
        for (network, served) in served {
            if let Some(there) = self.networks.get_mut(network) {
                contested |= Arc::make_mut(there).put_service(served);
            }
        }
        for (task, serves) in alone {
            for network in task.addresses.keys() {
                if let Some(there) = self.networks.get_mut(network) {
                    contested |= Arc::make_mut(there).put_task(task, *serves);
                }
            }
        }
        for name in known {
            match self.known.get_mut(name.as_str()) {
                Some(count) => *count += 1,
                None => _ = self.known.insert(name.as_str().into(), 1),
            }
        }
        contested
    }

    /// After very many were put in.
    pub(crate) fn compact(&mut self) {
        self.known.compact();
        self.networks.values_mut().for_each(|names| Arc::make_mut(names).compact());
    }

    /// Takes those out that were put in.
    pub(crate) fn take(&mut self, names: &Names) {
        let Names { served, alone, known } = names;
        for (network, served) in served {
            if let Some(there) = self.networks.get_mut(network) {
                Arc::make_mut(there).take_service(served);
            }
        }
        for (task, _) in alone {
            for network in task.addresses.keys() {
                if let Some(there) = self.networks.get_mut(network) {
                    Arc::make_mut(there).take_task(task);
                }
            }
        }
        for name in known {
            let Some(count) = self.known.get_mut(name.as_str()) else { continue };
            *count -= 1;
            if *count == 0 {
                self.known.remove(name.as_str());
            }
        }
    }
}
