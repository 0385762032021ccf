//! **Decision.** What would become of a flow that began now: the programs' own pipeline, run here on the maps.
//!
//! So what is foretold is what the kernel does, and cannot become another thing when the pipeline changes. Nothing is
//! written: flows go into empty buckets that are thrown away, and clients are not remembered.

use std::cell::{Cell, OnceCell, RefCell};

use aya::maps::lpm_trie::Key;
use mesh_ebpf::abi::{
    Addr16, AffinityKey, AffinityValue, Backend, Config, Endpoint, Frontend, FrontendKey, Mac, NO_BACKEND,
    NetPort, Network, Peer, Published, SLOT_LINE, Served, ServedKey, Sign, SourceKey, VIP_WORDS,
};
use mesh_ebpf::flow::{Bucket, Flow, Shared, WAYS};
use mesh_ebpf::hash;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::{Packet, Tuple};
use mesh_ebpf::pipeline;
use mesh_ebpf::verdict::{Action, Event};

use super::super::clock::now;
use super::{Asked, View, one};

/// What would become of a new flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreseen {
    /// What it meets; none: nothing of ours.
    pub frontend: Option<Frontend>,
    /// The slot that its hash leads to, counted from the frontend's first; none: it has not come to that, or its
    /// client goes where it went before.
    pub slot: Option<u32>,
    /// Where it goes.
    pub backend: Option<Backend>,
    /// How it goes there, or is refused.
    pub action: Action,
    /// What would be counted.
    pub events: Vec<Event>,
    /// All of this is of packets: a socket that is not bound to an address is led to any of the tasks before.
    pub at_socket: bool,
}

/// No step of the pipeline needs more of them for one packet.
const BUCKETS: usize = 16;
/// Nor more values by reference.
const VALUES: usize = 32;

pub(super) fn run(view: &View, asked: &Asked) -> Foreseen {
    let mut buckets = [Bucket([Flow::EMPTY; WAYS]); BUCKETS];
    let node = Dry {
        view,
        config: view.config.get(0),
        now: now(),
        buckets: RefCell::new(buckets.iter_mut().collect()),
        backends: Kept::default(),
        peers: Kept::default(),
        endpoints: Kept::default(),
        networks: Kept::default(),
        events: RefCell::default(),
        chosen: Cell::new(NO_BACKEND),
    };
    let tuple = Tuple::new(
        asked.client.into(),
        NetPort::new(asked.client_port.unwrap_or_default()),
        asked.destination.into(),
        NetPort::new(asked.port),
    );
    let mut packet = Packet::opening(tuple, asked.proto);
    let here = tuple.src.is_loopback() || node.is_local(&tuple.src) || node.device_of(&tuple.src).is_some();
    let verdict = if tuple.src.is_loopback() || node.is_local(&tuple.src) {
        pipeline::from_host(&node, &mut packet)
    } else if let Some(device) = node.device_of(&tuple.src) {
        pipeline::from_task(&node, &mut packet, device)
    } else {
        pipeline::from_net(&node, &mut packet, 0)
    };
    let chosen = node.chosen.get();
    let led = |frontend: &Frontend| frontend.backends != 0 && mesh_ebpf::sock::is_simple(frontend);
    Foreseen {
        at_socket: here && view.sockets && chosen != NO_BACKEND && led(&packet.frontend),
        frontend: (packet.frontend != Frontend::NONE).then_some(packet.frontend),
        slot: if chosen == NO_BACKEND { None } else { node.slot_of(&packet, chosen) },
        backend: if chosen == NO_BACKEND { None } else { node.backend(chosen).copied() },
        action: verdict.action(&packet.hop),
        events: node.events.take(),
    }
}

/// The node, as the pipeline asks for it.
struct Dry<'a> {
    view: &'a View,
    config: Config,
    now: u32,
    buckets: RefCell<Vec<&'a mut Bucket>>,
    backends: Kept<Backend>,
    peers: Kept<Peer>,
    endpoints: Kept<Endpoint>,
    networks: Kept<Network>,
    events: RefCell<Vec<Event>>,
    chosen: Cell<u32>,
}

/// Copies that live as long as the run does.
struct Kept<T>([OnceCell<T>; VALUES]);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self([const { OnceCell::new() }; VALUES])
    }
}

impl<T> Kept<T> {
    fn keep(&self, value: T) -> Option<&T> {
        let free = self.0.iter().find(|cell| cell.get().is_none())?;
        Some(free.get_or_init(|| value))
    }
}

impl Dry<'_> {
    /// The device of a task of this node.
    fn device_of(&self, addr: &Addr16) -> Option<u32> {
        let mut all = self.view.endpoints.iter().filter_map(Result::ok);
        all.find(|(_, task)| task.owns(addr)).map(|(device, _)| device)
    }

    /// As the pipeline finds it. None: the choice is by more than the flow.
    fn slot_of(&self, packet: &Packet, chosen: u32) -> Option<u32> {
        let (tuple, frontend, config) = (&packet.tuple, &packet.frontend, &self.config);
        if frontend.has(Frontend::LEAST) {
            return None;
        }
        let hash = if frontend.affinity != 0 {
            let key = AffinityKey { client: tuple.src, frontend: frontend.id };
            if self.affinity(&key).is_some_and(|known| known.backend == chosen) {
                return None;
            }
            hash::slot(&tuple.src, NetPort::ANY, NetPort::ANY, 0, config.mesh_seed)
        } else {
            let seed = if frontend.has(Frontend::HASHED) { config.mesh_seed } else { config.node_seed };
            hash::slot(&tuple.src, tuple.sport(), tuple.dport(), packet.proto, seed)
        };
        Some(hash & frontend.mask)
    }

    fn is_set(&self, hash: u32) -> bool {
        self.view.vips.get((hash >> 6 & (VIP_WORDS - 1)) as usize) >> (hash & 63) & 1 != 0
    }
}

impl Kernel for Dry<'_> {
    fn active(&self, backend: u32) -> i64 {
        one(&self.view.active, backend).unwrap_or_default()
    }

    /// As long as it is dry, nothing begins.
    fn more_active(&self, _: u32, _: i64) {}

    /// Nothing is counted.
    fn served(&self, _: &ServedKey) -> Option<Served> {
        None
    }

    fn note(&self, _: u32, _: Sign) {}

    fn config(&self) -> &Config {
        &self.config
    }

    fn now(&self) -> u32 {
        self.now
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.view.frontends.get(key, 0).ok()
    }

    fn slot(&self, slot: u32) -> u32 {
        let line = (slot / SLOT_LINE) as usize;
        let there = line < self.view.slots.len();
        let lines = there.then(|| self.view.slots.some(line..line + 1)).and_then(Result::ok);
        lines.map_or(NO_BACKEND, |lines| lines.get(line)[(slot % SLOT_LINE) as usize])
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.keep(one(&self.view.backends, id)?)
    }

    fn peer(&self, number: u32) -> Option<&Peer> {
        self.peers.keep(self.view.peers.get(&number, 0).ok()?)
    }

    fn peer_number(&self, _addr: &Addr16) -> Option<u32> {
        // Only what comes out of the tunnel is asked for, and no new flow does.
        None
    }

    fn endpoint(&self, device: u32) -> Option<&Endpoint> {
        self.endpoints.keep(self.view.endpoints.get(&device, 0).ok()?)
    }

    fn endpoint_of(&self, _mac: Mac) -> Option<&Endpoint> {
        // As above.
        None
    }

    fn network(&self, vni: u32) -> Option<&Network> {
        self.networks.keep(self.view.networks.get(&vni, 0).ok()?)
    }

    fn is_local(&self, addr: &Addr16) -> bool {
        self.view.locals.get(addr, 0).is_ok()
    }

    fn published(&self, proto: u8, port: NetPort) -> Published {
        let (word, shift) = Published::place(proto, port);
        Published::of(self.view.ports.get(word as usize), shift)
    }

    fn may_be_vip(&self, addr: &Addr16) -> bool {
        let (a, b) = hash::bloom(addr);
        self.is_set(a) && self.is_set(b)
    }

    fn lets_in(&self, source: &SourceKey) -> bool {
        self.view.sources.get(&Key::new(SourceKey::BITS, *source), 0).is_ok()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        self.view.affinity.get(key, 0).ok()
    }

    fn remember(&self, _key: &AffinityKey, _value: &AffinityValue) {}

    fn bucket(&self, _proto: u8, _place: u32) -> Option<Shared<'_>> {
        self.buckets.borrow_mut().pop().map(Shared::of)
    }

    fn count(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn account(&self, backend: u32, _bytes: u16, _new_flow: bool) {
        self.chosen.set(backend);
    }
}
