//! **Decision.** The last plan, and how it becomes the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Problem;
use super::balance::{Balance, Frontend, Pool, PortGate, Site};
use super::ground::{self, Base};
use super::overlay::{Endpoint, Overlay, Route};
use super::part::{Part, Scene, Unit};
use crate::dns::Zone;
use crate::liveness::Masks;
use crate::model::{Node, NodeId, Origin, SharedMap, Snapshot, Task, TaskId, Timestamp, Vni};

/// A plan that is put together from parts, and what it was made of.
#[derive(Debug)]
pub(super) struct Last {
    me: NodeId,
    base: Base,
    world: Snapshot,
    masks: Masks,
    now: Timestamp,
    routes: SharedMap<IpNet, Route>,
    endpoints: BTreeMap<String, Endpoint>,
    ports: BTreeMap<String, PortGate>,
    origins: BTreeMap<String, Origin>,
    sites: SharedMap<(Vni, IpAddr), Arc<Site>>,
    frontends: SharedMap<Frontend, Arc<Pool>>,
    zone: Zone,
    problems: BTreeMap<Unit, Vec<Problem>>,
    nexts: BTreeMap<Unit, Timestamp>,
    /// Two units want the same, which the records forbid: which one has it depends on the order of all.
    contested: bool,
}

impl Last {
    /// From nothing.
    pub(super) fn begin(world: &Snapshot, me: &Node, masks: &Masks, now: Timestamp) -> Self {
        let base = Base::of(world, me);
        let mut begun = Self {
            me: me.id.clone(),
            routes: base.routes.clone(),
            base,
            world: world.clone(),
            masks: masks.clone(),
            now,
            endpoints: BTreeMap::new(),
            ports: BTreeMap::new(),
            origins: BTreeMap::new(),
            sites: SharedMap::default(),
            frontends: SharedMap::default(),
            zone: Zone::of_networks(world),
            problems: BTreeMap::new(),
            nexts: BTreeMap::new(),
            contested: false,
        };
        for unit in Unit::all(world) {
            let part = Part::of(begun.scene(), &unit);
            begun.put(unit, part);
        }
        begun.routes.compact();
        begun.sites.compact();
        begun.frontends.compact();
        begun.zone.compact();
        begun
    }

    /// What the parts of what changed make of the last plan; none: it is to be made from nothing.
    pub(super) fn go_on(
        mut self,
        world: &Snapshot,
        me: &Node,
        masks: &Masks,
        now: Timestamp,
    ) -> Option<Self> {
        let stays = self.me == me.id && ground::is_same(&self.world, world, &self.me);
        if self.contested || now < self.now || !stays {
            return None;
        }
        let units = self.changed(world, masks, now);
        // What a unit has added is what it would add again.
        for unit in &units {
            let part = Part::of(self.scene(), unit);
            self.take(unit, &part);
        }
        (self.world, self.masks, self.now) = (world.clone(), masks.clone(), now);
        for unit in units {
            let part = Part::of(self.scene(), &unit);
            self.put(unit, part);
        }
        (!self.contested).then_some(self)
    }

    fn scene(&self) -> Scene<'_> {
        let Self { world, me, base, masks, now, .. } = self;
        Scene { world, me, base, masks, now: *now }
    }

    /// Whose part may be another one by now.
    fn changed(&self, world: &Snapshot, masks: &Masks, now: Timestamp) -> BTreeSet<Unit> {
        let last = &self.world;
        let due = self.nexts.iter().filter(|(_, next)| **next <= now).map(|(unit, _)| unit.clone());
        let mut units: BTreeSet<Unit> = due.collect();
        units.extend(last.services.changes(&world.services).map(|(id, _, _)| Unit::Service(id.clone())));
        let mut note = |task: &Arc<Task>| _ = units.insert(Unit::of(task));
        for (_, was, is) in last.tasks.changes(&world.tasks) {
            was.into_iter().chain(is).for_each(&mut note);
        }
        let mut tasks: BTreeSet<&TaskId> = differing(&last.stops, &world.stops).collect();
        tasks.extend(differing(&last.task_specs, &world.task_specs));
        tasks.extend(differing(&self.masks.tasks, &masks.tasks));
        for id in tasks {
            last.tasks.get(id).into_iter().chain(world.tasks.get(id)).for_each(&mut note);
        }
        let mut nodes: BTreeSet<&NodeId> = differing(&last.specs, &world.specs).collect();
        nodes.extend(differing(&self.masks.nodes, &masks.nodes));
        let left = |node: Option<&Arc<Node>>| node.is_some_and(|node| node.left);
        let moved = last.nodes.changes(&world.nodes).filter(|(_, was, is)| left(*was) != left(*is));
        nodes.extend(moved.map(|(id, _, _)| id));
        for node in nodes {
            last.tasks.on(node).iter().chain(world.tasks.on(node)).for_each(&mut note);
        }
        units
    }

    fn put(&mut self, unit: Unit, part: Part) {
        let Part { routes, endpoints, sites, frontends, names, problems, next } = part;
        self.contested |= self.zone.put(&names);
        for (device, endpoint) in endpoints {
            let gate = PortGate { vni: endpoint.vni, addresses: endpoint.addresses };
            self.contested |= self.ports.insert(device.clone(), gate).is_some();
            if self.world.tasks.get(&endpoint.task).is_none_or(|task| !task.packets_only) {
                self.origins.insert(device.clone(), endpoint.origin.clone());
            }
            self.endpoints.insert(device, endpoint);
        }
        for (net, route) in routes {
            self.contested |= self.routes.insert(net, route).is_some();
        }
        for (at, site) in sites {
            self.contested |= self.sites.insert(at, site).is_some();
        }
        for (at, pool) in frontends {
            self.contested |= self.frontends.insert(at, pool).is_some();
        }
        if let Some(next) = next {
            self.nexts.insert(unit.clone(), next);
        }
        if !problems.is_empty() {
            self.problems.insert(unit, problems);
        }
    }

    fn take(&mut self, unit: &Unit, part: &Part) {
        let Part { routes, endpoints, sites, frontends, names, problems: _, next: _ } = part;
        self.zone.take(names);
        for device in endpoints.keys() {
            self.endpoints.remove(device);
            self.ports.remove(device);
            self.origins.remove(device);
        }
        routes.keys().for_each(|net| _ = self.routes.remove(net));
        sites.keys().for_each(|at| _ = self.sites.remove(at));
        frontends.keys().for_each(|at| _ = self.frontends.remove(at));
        self.problems.remove(unit);
        self.nexts.remove(unit);
    }

    pub(super) fn overlay(&self) -> Overlay {
        Overlay {
            vtep: self.base.vtep.clone(),
            peers: self.base.peers.clone(),
            routes: self.routes.clone(),
            endpoints: self.endpoints.clone(),
        }
    }

    pub(super) fn balance(&self, me: &Node) -> Balance {
        Balance {
            node: Some(me.address),
            tunnel_mtu: self.base.vtep.as_ref().map_or(0, |vtep| vtep.mtu),
            tunnel_port: self.base.vtep.as_ref().map_or(0, |vtep| vtep.port),
            peers: self.base.peers.keys().copied().collect(),
            sites: self.sites.clone(),
            frontends: self.frontends.clone(),
            networks: self.base.gates.clone(),
            ports: self.ports.clone(),
            origins: self.origins.clone(),
        }
    }

    pub(super) fn zone(&self) -> Zone {
        self.zone.clone()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.base.problems.iter().chain(self.problems.values().flatten())
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.nexts.values().min().copied()
    }
}

fn differing<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    two: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    one.keys().chain(two.keys()).filter(|key| one.get(*key) != two.get(*key))
}
