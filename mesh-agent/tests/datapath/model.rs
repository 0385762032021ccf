//! A node's tables, and a kernel that has them in memory: what the programs are compared with.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use mesh_ebpf::abi::*;
use mesh_ebpf::flow::{Bucket, Flow, Head, Role, Shared, WAYS};
use mesh_ebpf::hash;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::Tuple;
use mesh_ebpf::verdict::{EVENTS, Event};

/// What an agent would write.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) config: Config,
    pub(crate) frontends: BTreeMap<FrontendKey, Frontend>,
    pub(crate) lines: Vec<SlotLine>,
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) peers: BTreeMap<u32, Peer>,
    pub(crate) endpoints: BTreeMap<u32, Endpoint>,
    pub(crate) networks: BTreeMap<u32, Network>,
    pub(crate) locals: BTreeSet<Addr16>,
    /// With the length of their prefixes.
    pub(crate) sources: BTreeSet<(u32, SourceKey)>,
}

impl Tables {
    /// The bits of published ports, by word.
    pub(crate) fn ports(&self) -> BTreeMap<u32, u64> {
        let mut words = BTreeMap::new();
        for key in self.frontends.keys().filter(|key| key.scope == Scope::Published as u8) {
            let everywhere = [Addr16::ANY_V4, Addr16::ANY_V6].contains(&key.addr);
            let bits = if everywhere { Published::EVERYWHERE } else { Published::SOMEWHERE };
            let (word, shift) = Published::place(key.proto, key.port);
            *words.entry(word).or_default() |= bits.0 << shift;
        }
        words
    }

    /// The bits of VIPs, by word.
    pub(crate) fn vips(&self) -> BTreeMap<u32, u64> {
        let mut words = BTreeMap::new();
        for key in self.frontends.keys().filter(|key| key.scope == Scope::Vip as u8) {
            let (a, b) = hash::bloom(&key.addr);
            for bit in [a, b].map(|hash| hash % (VIP_WORDS * 64)) {
                *words.entry(bit / 64).or_default() |= 1_u64 << (bit % 64);
            }
        }
        words
    }
}

/// A node in memory.
pub(crate) struct Model {
    pub(crate) tables: Tables,
    pub(crate) now: Cell<u32>,
    ports: BTreeMap<u32, u64>,
    vips: BTreeMap<u32, u64>,
    affinity: RefCell<BTreeMap<AffinityKey, AffinityValue>>,
    pub(crate) events: RefCell<Vec<u64>>,
    pub(crate) stats: RefCell<BTreeMap<u32, Stats>>,
    pub(crate) active: RefCell<BTreeMap<u32, i64>>,
    flows: [Vec<Shared<'static>>; 2],
}

impl Model {
    pub(crate) fn new(tables: Tables) -> Self {
        let table = |mask: u32| {
            // Tests end before memory does.
            let buckets = (0..=mask).map(|_| Box::leak(Box::new(Bucket([Flow::EMPTY; WAYS]))));
            buckets.map(Shared::of).collect()
        };
        let flows = [table(tables.config.tcp_mask), table(tables.config.udp_mask)];
        Self {
            now: Cell::new(0),
            ports: tables.ports(),
            vips: tables.vips(),
            affinity: RefCell::default(),
            events: RefCell::new(vec![0; EVENTS as usize]),
            stats: RefCell::default(),
            active: RefCell::default(),
            flows,
            tables,
        }
    }

    /// What is remembered of a tuple.
    pub(crate) fn flow(&self, proto: u8, tuple: &Tuple, role: Role) -> Option<Flow> {
        let place = hash::place(tuple, self.tables.config.table_seed);
        let found = self.bucket(proto, place)?.find(tuple, role)?;
        let (port, client_port, addr) = found.read()?;
        Some(Flow { tuple: *tuple, port, client_port, head: found.head.0, addr })
    }
}

/// A head without what depends on the moment: the time, and how often its place was used.
pub(crate) fn timeless(head: u64) -> u64 {
    Head(head).used(0, 0).0 & !(0x1f << 58)
}

impl Kernel for Model {
    fn config(&self) -> &Config {
        &self.tables.config
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.tables.frontends.get(key).copied()
    }

    fn slot(&self, slot: u32) -> u32 {
        let line = self.tables.lines.get((slot / SLOT_LINE) as usize);
        line.map_or(NO_BACKEND, |line| line[(slot % SLOT_LINE) as usize])
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        const NONE: Backend = Backend {
            addr: Addr16::ANY_V6,
            generation: 0,
            vni: 0,
            device: 0,
            peer: 0,
            mac: [0; 6],
            state: 0,
            pad: 0,
            weight: 0,
            rest: [0; 5],
        };
        Some(self.tables.backends.get(&id).unwrap_or(&NONE))
    }

    fn peer(&self, number: u32) -> Option<&Peer> {
        const NONE: Peer = Peer { addr: Addr16::ANY_V6, mac: [0; 6], pad: [0; 2] };
        Some(self.tables.peers.get(&number).unwrap_or(&NONE))
    }

    fn peer_number(&self, addr: &Addr16) -> Option<u32> {
        self.tables.peers.iter().find(|(_, peer)| peer.addr == *addr).map(|(number, _)| *number)
    }

    fn endpoint(&self, device: u32) -> Option<&Endpoint> {
        self.tables.endpoints.get(&device)
    }

    fn endpoint_of(&self, mac: Mac) -> Option<&Endpoint> {
        self.tables.endpoints.values().find(|endpoint| endpoint.mac == mac)
    }

    fn network(&self, vni: u32) -> Option<&Network> {
        self.tables.networks.get(&vni)
    }

    fn is_local(&self, addr: &Addr16) -> bool {
        self.tables.locals.contains(addr)
    }

    fn published(&self, proto: u8, port: NetPort) -> Published {
        let (word, shift) = Published::place(proto, port);
        Published::of(self.ports.get(&word).copied().unwrap_or_default(), shift)
    }

    fn may_be_vip(&self, addr: &Addr16) -> bool {
        let (a, b) = hash::bloom(addr);
        let bits = [a, b].map(|hash| hash % (VIP_WORDS * 64));
        bits.iter().all(|bit| self.vips.get(&(bit / 64)).is_some_and(|word| word >> (bit % 64) & 1 != 0))
    }

    fn lets_in(&self, source: &SourceKey) -> bool {
        let bits = |key: &SourceKey| u128::from_be_bytes(key.addr.octets());
        self.tables.sources.iter().any(|(len, key)| {
            let rest = SourceKey::BITS - len;
            key.frontend == source.frontend && (bits(key) ^ bits(source)).checked_shr(rest).unwrap_or(0) == 0
        })
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        self.affinity.borrow().get(key).copied()
    }

    fn remember(&self, key: &AffinityKey, value: &AffinityValue) {
        self.affinity.borrow_mut().insert(*key, *value);
    }

    fn bucket(&self, proto: u8, place: u32) -> Option<Shared<'_>> {
        let config = &self.tables.config;
        let (table, mask) =
            if proto == TCP { (&self.flows[0], config.tcp_mask) } else { (&self.flows[1], config.udp_mask) };
        table.get((place & mask) as usize).copied()
    }

    fn count(&self, event: Event) {
        self.events.borrow_mut()[event as usize] += 1;
    }

    fn active(&self, backend: u32) -> i64 {
        self.active.borrow().get(&backend).copied().unwrap_or_default()
    }

    fn more_active(&self, backend: u32, flows: i64) {
        *self.active.borrow_mut().entry(backend).or_default() += flows;
    }

    /// No port is known to be served.
    fn served(&self, _: &ServedKey) -> Option<Served> {
        None
    }

    fn note(&self, _: u32, _: Sign) {}

    fn account(&self, backend: u32, bytes: u16, new_flow: bool) {
        let mut stats = self.stats.borrow_mut();
        let stats = stats.entry(backend).or_default();
        stats.packets += 1;
        stats.bytes += u64::from(bytes);
        stats.flows += u64::from(new_flow);
    }
}
