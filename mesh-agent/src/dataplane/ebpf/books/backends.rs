//! **Decision.** Ids of backends, and whether each gets new flows. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::{SharedMap, Vni};
use mesh_core::plan::Site;
use mesh_ebpf::abi::{Backend, BackendState, NO_BACKEND};

use super::super::ids::Ids;
use super::node::NodeTables;
use super::{Facts, Found, Problems, Sizes, Step};

/// A task's address in a network.
type Key = (Vni, IpAddr);

/// What is known of a backend. There are very many.
#[derive(Debug, Clone)]
struct Known {
    id: u32,
    /// As the map has it.
    value: Value,
    /// How many tables have it in their slots.
    used: u32,
    /// Its node does not answer.
    silent: bool,
}

/// What the map has of it, but for what it is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value {
    generation: u32,
    device: u32,
    peer: u32,
    weight: u32,
    mac: [u8; 6],
    state: u8,
}

impl Value {
    fn of(backend: &Backend) -> Self {
        let Backend { generation, device, peer, weight, mac, state, .. } = *backend;
        Self { generation, device, peer, weight, mac, state }
    }

    /// As it is written.
    fn at(self, (vni, address): &Key) -> Backend {
        let Self { generation, device, peer, weight, mac, state } = self;
        let (addr, vni) = ((*address).into(), vni.0);
        Backend { addr, generation, vni, device, peer, mac, state, pad: 0, weight, rest: [0; 5] }
    }
}

impl Known {
    /// As it is to be.
    fn state(&self) -> u8 {
        let state = match (self.used, self.silent) {
            (0, false) => BackendState::Draining,
            (0, true) => BackendState::Silent,
            _ => BackendState::Active,
        };
        state as u8
    }
}

/// All backends, whether or not they get new flows.
#[derive(Debug)]
pub(in super::super) struct Backends {
    known: SharedMap<Key, Known>,
    ids: Ids,
    /// By id; 0: it was never given out.
    generations: Vec<u32>,
    /// Whose use changed in this round.
    touched: Vec<Key>,
    /// Who is gone: they leave when no slot names them any more.
    leaving: Vec<Key>,
}

impl Backends {
    pub(super) fn open(sizes: &Sizes, found: &Found) -> Self {
        let mut ids = Ids::new(NO_BACKEND + 1..sizes.backends);
        let mut known = SharedMap::default();
        let mut generations = Vec::new();
        for (id, value) in &found.backends {
            note(&mut generations, *id, value.generation);
            if value.state != BackendState::Gone as u8 && ids.take_that(*id) {
                let key = (Vni(value.vni), IpAddr::from(value.addr));
                known.insert(key, Known { id: *id, value: Value::of(value), used: 0, silent: false });
            }
        }
        let touched = known.keys().copied().collect();
        Self { known, ids, generations, touched, leaving: Vec::new() }
    }

    /// Makes running tasks known.
    pub(super) fn put(
        &mut self,
        sites: &BTreeMap<Key, Arc<Site>>,
        facts: &Facts,
        node: &NodeTables,
        steps: &mut Vec<Step>,
        problems: &mut Problems,
    ) {
        for (key, site) in sites {
            let (device, peer) = match site.peer {
                Some(underlay) => (0, node.peer(underlay).unwrap_or_default()),
                None => (facts.devices.get(&*site.device).copied().unwrap_or_default(), 0),
            };
            // One that cannot be reached yet is none.
            if device == 0 && peer == 0 {
                continue;
            }
            if let Some(known) = self.known.get_mut(key) {
                if known.silent != site.silent {
                    known.silent = site.silent;
                    self.touched.push(*key);
                }
                let weight = u32::from(site.weight);
                let mut value = Value { device, peer, mac: site.mac.0, weight, ..known.value };
                if value.mac != known.value.mac {
                    // Another task has the address: flows of the former one end.
                    value.generation += 1;
                    note(&mut self.generations, known.id, value.generation);
                }
                if value != known.value {
                    known.value = value;
                    steps.push(Step::Backend(known.id, value.at(key)));
                }
                continue;
            }
            let Some(id) = self.ids.take() else {
                let why = "there is no room for another backend; remove services that are not needed";
                problems.insert(format!("backend {}", key.1), why.to_owned());
                continue;
            };
            let generation = self.generations.get(id as usize).map_or(1, |last| last + 1);
            note(&mut self.generations, id, generation);
            // It is in no slots yet; before it is, it is made active.
            let state = if site.silent { BackendState::Silent } else { BackendState::Draining } as u8;
            let weight = u32::from(site.weight);
            let value = Value { generation, device, peer, weight, mac: site.mac.0, state };
            self.known.insert(*key, Known { id, value, used: 0, silent: site.silent });
            steps.push(Step::Backend(id, value.at(key)));
        }
    }

    /// These are gone.
    pub(super) fn leave<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        self.leaving.extend(keys);
    }

    /// All others are.
    pub(super) fn leave_all_but(&mut self, sites: &SharedMap<Key, Arc<Site>>) {
        self.leaving.extend(self.known.keys().filter(|key| !sites.contains_key(key)));
    }

    /// The id of a task's address.
    pub(super) fn id(&self, key: &Key) -> Option<u32> {
        self.known.get(key).map(|known| known.id)
    }

    /// One more table has it in its slots.
    pub(super) fn hold(&mut self, key: Key, steps: &mut Vec<Step>) {
        let Some(known) = self.known.get_mut(&key) else { return };
        known.used += 1;
        if known.used == 1 {
            // Before the slots are written.
            let active = Value { state: BackendState::Active as u8, ..known.value };
            if active != known.value {
                known.value = active;
                steps.push(Step::Backend(known.id, active.at(&key)));
            }
        }
    }

    /// One less.
    pub(super) fn release(&mut self, key: Key) {
        if let Some(known) = self.known.get_mut(&key) {
            known.used = known.used.saturating_sub(1);
            self.touched.push(key);
        }
    }

    /// After the slots are written: who is in none drains, and who is gone goes.
    pub(super) fn settle(&mut self, steps: &mut Vec<Step>) {
        for key in self.touched.drain(..) {
            let Some(known) = self.known.get_mut(&key) else { continue };
            let value = Value { state: known.state(), ..known.value };
            if value != known.value {
                known.value = value;
                steps.push(Step::Backend(known.id, value.at(&key)));
            }
        }
        for key in self.leaving.drain(..) {
            let Some(Known { id, value, .. }) = self.known.remove(&key) else { continue };
            self.ids.give_back(id);
            let gone = Value { state: BackendState::Gone as u8, ..value };
            steps.push(Step::Backend(id, gone.at(&key)));
        }
    }
}

/// Notes what the last one had that had an id.
fn note(generations: &mut Vec<u32>, id: u32, generation: u32) {
    let at = id as usize;
    if generations.len() <= at {
        generations.resize(at + 1, 0);
    }
    generations[at] = generation;
}
