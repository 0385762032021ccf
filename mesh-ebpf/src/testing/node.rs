//! A node's maps, without a kernel.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{HashMap, HashSet};

use crate::abi::*;
use crate::flow::{Bucket, Flow, Shared, WAYS};
use crate::kernel::Kernel;
use crate::verdict::Event;

/// A node.
pub struct Node {
    /// What holds for it.
    pub config: Config,
    /// The moment, in ticks.
    pub now: Cell<u32>,
    /// By key, VIPs and published ports.
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// The backend id in each slot.
    pub slots: Vec<u32>,
    /// By id.
    pub backends: Vec<Backend>,
    /// By number.
    pub peers: Vec<Peer>,
    /// By device.
    pub endpoints: HashMap<u32, Endpoint>,
    /// By VNI.
    pub networks: HashMap<u32, Network>,
    /// Its own addresses.
    pub locals: HashSet<Addr16>,
    /// Who is let in, one address each.
    pub sources: HashSet<SourceKey>,
    /// Where clients' flows go.
    pub affinity: RefCell<HashMap<AffinityKey, AffinityValue>>,
    /// How often what happened, by the number of the [`Event`].
    pub events: RefCell<HashMap<u32, u32>>,
    /// New flows of each backend.
    pub flows: RefCell<HashMap<u32, u64>>,
    /// Flows that each backend has.
    pub active: RefCell<HashMap<u32, i64>>,
    /// Which ports tasks are known to serve.
    pub served: HashMap<ServedKey, Served>,
    /// What tasks made of connections, by index.
    pub signs: RefCell<HashMap<u32, Signs>>,
    tcp: UnsafeCell<Vec<Bucket>>,
    udp: UnsafeCell<Vec<Bucket>>,
}

impl Node {
    /// With tables of so many buckets, a power of two.
    pub fn new(number: u32, buckets: u32) -> Self {
        let config = Config {
            table_seed: 0x1234_5678_9abc_def0 ^ u64::from(number),
            node_seed: 0xfeed_0000_0000_0001 << number,
            mesh_seed: 77,
            tcp_mask: buckets - 1,
            udp_mask: buckets - 1,
            tunnel: 9,
            tunnel_mtu: 1450,
            mac: [2, 9, 9, 9, 9, number as u8],
            ..Config::NEW
        };
        Self {
            config,
            now: Cell::new(1000),
            frontends: HashMap::new(),
            slots: Vec::new(),
            backends: vec![Backend::default()],
            peers: vec![Peer::default()],
            endpoints: HashMap::new(),
            networks: HashMap::new(),
            locals: HashSet::new(),
            sources: HashSet::new(),
            affinity: RefCell::default(),
            events: RefCell::default(),
            flows: RefCell::default(),
            active: RefCell::default(),
            served: HashMap::new(),
            signs: RefCell::default(),
            tcp: table(buckets),
            udp: table(buckets),
        }
    }

    /// Forgets all flows.
    pub fn lose_flows(&self) {
        let buckets = self.config.tcp_mask + 1;
        // SAFETY: nobody holds a bucket while no packet is under way.
        unsafe {
            *self.tcp.get() = table(buckets).into_inner();
            *self.udp.get() = table(buckets).into_inner();
        }
    }

    /// All entries of the table of TCP or UDP.
    pub fn entries(&self, proto: u8) -> Vec<Flow> {
        let table = if proto == TCP { &self.tcp } else { &self.udp };
        // SAFETY: as above.
        let all: Vec<Flow> = unsafe { &*table.get() }.iter().flat_map(|bucket| bucket.0).collect();
        all.into_iter().filter(|flow| flow.head != 0).collect()
    }

    /// How often something happened.
    pub fn counted(&self, event: Event) -> u32 {
        self.events.borrow().get(&(event as u32)).copied().unwrap_or(0)
    }
}

fn table(buckets: u32) -> UnsafeCell<Vec<Bucket>> {
    UnsafeCell::new(vec![Bucket([Flow::EMPTY; WAYS]); buckets as usize])
}

impl Kernel for Node {
    fn config(&self) -> &Config {
        &self.config
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn slot(&self, slot: u32) -> u32 {
        self.slots.get(slot as usize).copied().unwrap_or(NO_BACKEND)
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }

    fn peer(&self, number: u32) -> Option<&Peer> {
        self.peers.get(number as usize).filter(|peer| peer.addr != Addr16::ANY_V6)
    }

    fn peer_number(&self, addr: &Addr16) -> Option<u32> {
        self.peers.iter().position(|peer| peer.addr == *addr).map(|number| number as u32)
    }

    fn endpoint(&self, device: u32) -> Option<&Endpoint> {
        self.endpoints.get(&device)
    }

    fn endpoint_of(&self, mac: Mac) -> Option<&Endpoint> {
        self.endpoints.values().find(|task| task.mac == mac)
    }

    fn network(&self, vni: u32) -> Option<&Network> {
        self.networks.get(&vni)
    }

    fn is_local(&self, addr: &Addr16) -> bool {
        self.locals.contains(addr)
    }

    fn published(&self, proto: u8, port: NetPort) -> Published {
        let at = |addr: &Addr16| [Addr16::ANY_V4, Addr16::ANY_V6].contains(addr);
        let (mut all, mut some) = (0, 0);
        for key in self.frontends.keys().filter(|key| key.scope == Scope::Published as u8) {
            if (key.proto, key.port) == (proto, port) {
                *if at(&key.addr) { &mut all } else { &mut some } = 1;
            }
        }
        Published(all | some << 1)
    }

    /// Errs for all that end in an even byte.
    fn may_be_vip(&self, addr: &Addr16) -> bool {
        addr.octets()[15] & 1 == 0 || self.frontends.contains_key(&FrontendKey::vip(*addr))
    }

    fn lets_in(&self, source: &SourceKey) -> bool {
        self.sources.contains(source)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        self.affinity.borrow().get(key).copied()
    }

    fn remember(&self, key: &AffinityKey, value: &AffinityValue) {
        self.affinity.borrow_mut().insert(*key, *value);
    }

    fn bucket(&self, proto: u8, place: u32) -> Option<Shared<'_>> {
        let (table, mask) =
            if proto == TCP { (&self.tcp, self.config.tcp_mask) } else { (&self.udp, self.config.udp_mask) };
        // SAFETY: the table is only replaced while nobody holds a bucket.
        Some(unsafe { Shared::at((*table.get()).as_mut_ptr().add((place & mask) as usize)) })
    }

    fn count(&self, event: Event) {
        *self.events.borrow_mut().entry(event as u32).or_default() += 1;
    }

    fn active(&self, backend: u32) -> i64 {
        self.active.borrow().get(&backend).copied().unwrap_or_default()
    }

    fn more_active(&self, backend: u32, flows: i64) {
        *self.active.borrow_mut().entry(backend).or_default() += flows;
    }

    fn served(&self, key: &ServedKey) -> Option<Served> {
        self.served.get(key).copied()
    }

    fn note(&self, index: u32, sign: Sign) {
        self.signs.borrow_mut().entry(index).or_default().0[sign as usize] += 1;
    }

    fn account(&self, backend: u32, _: u16, new_flow: bool) {
        *self.flows.borrow_mut().entry(backend).or_default() += u64::from(new_flow);
    }
}
