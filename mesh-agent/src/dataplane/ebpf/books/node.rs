//! **Decision.** The small tables: other nodes, networks, tasks of this node, addresses. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use mesh_core::model::TaskAddress;
use mesh_core::plan::{Balance, Mac};
use mesh_ebpf::abi::{Addr16, Endpoint, MacKey, Network, Peer};

use super::super::ids::Ids;
use super::{Facts, Found, Problems, Sizes, Step};

/// What the small tables hold.
pub(in super::super) struct NodeTables {
    peers: BTreeMap<Addr16, u32>,
    peer_ids: Ids,
    networks: BTreeMap<u32, Network>,
    endpoints: BTreeMap<u32, Endpoint>,
    macs: BTreeMap<MacKey, Endpoint>,
    locals: BTreeSet<Addr16>,
    devices_changed: bool,
    peers_changed: bool,
    /// Addresses that were found with a number that is another's.
    strays: Vec<Addr16>,
    gone: Vec<Step>,
}

impl NodeTables {
    pub(super) fn open(sizes: &Sizes, found: Found) -> Self {
        let mut peer_ids = Ids::new(1..sizes.peers);
        let (mut peers, mut strays) = (BTreeMap::new(), Vec::new());
        for (addr, number, peer) in found.peers {
            if peer.addr == addr && peer_ids.take_that(number) {
                peers.insert(addr, number);
            } else {
                strays.push(addr);
            }
        }
        Self {
            peers,
            peer_ids,
            networks: found.networks.into_iter().collect(),
            endpoints: found.endpoints.into_iter().collect(),
            macs: found.macs.into_iter().collect(),
            locals: found.locals.into_iter().collect(),
            devices_changed: true,
            peers_changed: true,
            strays,
            gone: Vec::new(),
        }
    }

    /// The number of another node.
    pub(super) fn peer(&self, underlay: IpAddr) -> Option<u32> {
        self.peers.get(&Addr16::from(underlay)).copied()
    }

    /// Whether a task of this node has another device than before the last round.
    pub(super) fn devices_changed(&self) -> bool {
        self.devices_changed
    }

    /// Whether another node has another number.
    pub(super) fn peers_changed(&self) -> bool {
        self.peers_changed
    }

    pub(super) fn put(
        &mut self,
        want: &Balance,
        facts: &Facts,
        steps: &mut Vec<Step>,
        problems: &mut Problems,
    ) {
        self.peers_changed = false;
        self.put_peers(&want.peers, steps, problems);
        let networks = want.networks.iter().map(|(vni, gate)| (vni.0, network(gate.gateway))).collect();
        settle(&mut self.networks, networks, Step::Network, steps, &mut self.gone);
        let mut endpoints = BTreeMap::new();
        for (name, gate) in &want.ports {
            // Without a device there is nobody to hear of it; the overlay says what is wrong.
            let Some(device) = facts.devices.get(name) else { continue };
            let v6 = gate.addresses.v6.map_or(Addr16::ANY_V6, |v6| IpAddr::V6(v6).into());
            let endpoint = Endpoint {
                v4: IpAddr::V4(gate.addresses.v4).into(),
                v6,
                vni: gate.vni.0,
                device: *device,
                mac: Mac::of_task(name).0,
                pad: [0; 2],
            };
            endpoints.insert(*device, endpoint);
        }
        self.devices_changed = self.endpoints != endpoints;
        let macs = endpoints.values().map(|endpoint| (endpoint.mac.into(), *endpoint)).collect();
        settle(&mut self.endpoints, endpoints, Step::Endpoint, steps, &mut self.gone);
        settle(&mut self.macs, macs, Step::Mac, steps, &mut self.gone);
        let inside = |address: &IpAddr| {
            want.networks.values().any(|gate| gate.subnets.iter().any(|net| net.contains(address)))
        };
        // The node's addresses in networks publish nothing.
        let locals: BTreeSet<Addr16> = facts
            .addresses
            .iter()
            .filter(|address| !inside(address))
            .map(|address| (*address).into())
            .collect();
        steps.extend(locals.difference(&self.locals).map(|address| Step::Local(*address, true)));
        self.gone.extend(self.locals.difference(&locals).map(|address| Step::Local(*address, false)));
        self.locals = locals;
    }

    /// What nothing points to any more.
    pub(super) fn remove(&mut self, steps: &mut Vec<Step>) {
        steps.append(&mut self.gone);
    }

    fn put_peers(&mut self, want: &BTreeSet<IpAddr>, steps: &mut Vec<Step>, problems: &mut Problems) {
        for underlay in want {
            let addr = Addr16::from(*underlay);
            if self.peers.contains_key(&addr) {
                continue;
            }
            let Some(number) = self.peer_ids.take() else {
                problems.insert(format!("node {underlay}"), "there is no room for another node".to_owned());
                continue;
            };
            self.peers_changed = true;
            self.peers.insert(addr, number);
            steps.push(Step::Peer(number, Peer { addr, mac: Mac::of_vtep(*underlay).0, pad: [0; 2] }));
            steps.push(Step::PeerId(addr, Some(number)));
        }
        let want: BTreeSet<Addr16> = want.iter().map(|underlay| (*underlay).into()).collect();
        let ids = &mut self.peer_ids;
        for (addr, number) in self.peers.extract_if(.., |addr, _| !want.contains(addr)) {
            ids.give_back(number);
            self.peers_changed = true;
            self.gone.push(Step::PeerId(addr, None));
            self.gone.push(Step::Peer(number, Peer::default()));
        }
        let strays = std::mem::take(&mut self.strays).into_iter();
        let strays = strays.filter(|addr| !self.peers.contains_key(addr));
        self.gone.extend(strays.map(|addr| Step::PeerId(addr, None)));
    }
}

fn network(gateway: Option<TaskAddress>) -> Network {
    let none = Addr16::ANY_V6;
    Network {
        v4: gateway.map_or(none, |own| IpAddr::V4(own.v4).into()),
        v6: gateway.and_then(|own| own.v6).map_or(none, |v6| IpAddr::V6(v6).into()),
    }
}

/// Turns one small table into another.
fn settle<K: Ord + Copy, V: PartialEq + Copy>(
    have: &mut BTreeMap<K, V>,
    want: BTreeMap<K, V>,
    step: impl Fn(K, Option<V>) -> Step,
    steps: &mut Vec<Step>,
    gone: &mut Vec<Step>,
) {
    for (key, value) in &want {
        if have.get(key) != Some(value) {
            steps.push(step(*key, Some(*value)));
        }
    }
    gone.extend(have.keys().filter(|key| !want.contains_key(key)).map(|key| step(*key, None)));
    *have = want;
}
