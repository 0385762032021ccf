//! The node's maps, as the pipeline asks for them.

use aya_ebpf::{helpers::generated::bpf_jiffies64, maps::lpm_trie::Key};
use mesh_ebpf::abi::{
    Addr16, AffinityKey, AffinityValue, Backend, Config, Endpoint, Frontend, FrontendKey, Mac, MacKey,
    NO_BACKEND, NetPort, Network, Peer, Published, SLOT_LINE, Served, ServedKey, Sign, SourceKey, TCP,
    VIP_WORDS,
};
use mesh_ebpf::atomic;
use mesh_ebpf::flow::{Head, Shared, TICK};
use mesh_ebpf::hash;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::Packet;
use mesh_ebpf::pipeline::Seen;
use mesh_ebpf::verdict::{Event, Verdict};

use super::maps::{
    ACTIVE, AFFINITY, BACKENDS, CONFIG, ENDPOINTS, EVENTS, FLOWS_TCP, FLOWS_UDP, FRONTENDS, LOCALS, MACS,
    NETWORKS, PEER_IDS, PEERS, PORTS, SERVED, SIGNS, SLOTS, SOURCES, STATS, VIP_BITS,
};
use super::steps;

/// This node.
pub(crate) struct Node {
    config: &'static Config,
}

impl Node {
    /// `None` until the agent has written the configuration.
    #[inline(always)]
    pub(crate) fn get() -> Option<Self> {
        let config = CONFIG.get(0)?;
        (config.tcp_mask != 0).then_some(Self { config })
    }

    /// Counts what happened, by its number.
    #[inline(always)]
    pub(crate) fn count_number(&self, event: u32) {
        if let Some(count) = EVENTS.get_ptr_mut(event) {
            // SAFETY: this CPU's own value, and programs of this hook do not interrupt each other.
            unsafe { *count += 1 };
        }
    }
}

// Values of hash maps are copied or read at once. Should the agent remove an entry meanwhile, the kernel may give its
// memory to another of the same map: the packet then goes where a packet of a moment ago would have gone, or is lost.
// The bounds hold whatever is read.
impl Kernel for Node {
    #[inline(always)]
    fn config(&self) -> &Config {
        self.config
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        let jiffies = unsafe { bpf_jiffies64() };
        (self.config.clock.nanos(jiffies) >> TICK) as u32
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        // SAFETY: see above.
        unsafe { FRONTENDS.get(key) }.copied()
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> u32 {
        SLOTS.get(slot / SLOT_LINE).map_or(NO_BACKEND, |line| line[(slot % SLOT_LINE) as usize])
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn peer(&self, number: u32) -> Option<&Peer> {
        PEERS.get(number)
    }

    #[inline(always)]
    fn peer_number(&self, addr: &Addr16) -> Option<u32> {
        // SAFETY: see above.
        unsafe { PEER_IDS.get(addr) }.copied()
    }

    #[inline(always)]
    fn endpoint(&self, device: u32) -> Option<&Endpoint> {
        // SAFETY: see above.
        unsafe { ENDPOINTS.get(&device) }
    }

    #[inline(always)]
    fn endpoint_of(&self, mac: Mac) -> Option<&Endpoint> {
        // SAFETY: see above.
        unsafe { MACS.get(&MacKey::from(mac)) }
    }

    #[inline(always)]
    fn network(&self, vni: u32) -> Option<&Network> {
        // SAFETY: see above.
        unsafe { NETWORKS.get(&vni) }
    }

    #[inline(always)]
    fn is_local(&self, addr: &Addr16) -> bool {
        // SAFETY: see above.
        self.config.is_here(addr) || unsafe { LOCALS.get(addr) }.is_some()
    }

    #[inline(always)]
    fn published(&self, proto: u8, port: NetPort) -> Published {
        let (word, shift) = Published::place(proto, port);
        PORTS.get(word).map_or(Published::default(), |word| Published::of(*word, shift))
    }

    #[inline(always)]
    fn may_be_vip(&self, addr: &Addr16) -> bool {
        let (a, b) = hash::bloom(addr);
        is_set(a) && is_set(b)
    }

    #[inline(always)]
    fn lets_in(&self, source: &SourceKey) -> bool {
        SOURCES.get(&Key::new(SourceKey::BITS, *source)).is_some()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        // SAFETY: see above.
        unsafe { AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &AffinityKey, value: &AffinityValue) {
        // A client that is not remembered is balanced by its hash again.
        let _ = AFFINITY.insert(key, value, 0);
    }

    #[inline(always)]
    fn bucket(&self, proto: u8, place: u32) -> Option<Shared<'_>> {
        let bucket = if proto == TCP {
            FLOWS_TCP.get_ptr_mut(place & self.config.tcp_mask)
        } else {
            FLOWS_UDP.get_ptr_mut(place & self.config.udp_mask)
        };
        // SAFETY: a value of an array map lives as long as the map, which the program holds.
        bucket.map(|bucket| unsafe { Shared::at(bucket) })
    }

    #[inline(always)]
    fn count(&self, event: Event) {
        self.count_number(event as u32);
    }

    #[inline(always)]
    fn account(&self, backend: u32, bytes: u16, new_flow: bool) {
        if let Some(stats) = STATS.get_ptr_mut(backend) {
            // SAFETY: as in `count_number`.
            unsafe {
                (*stats).packets += 1;
                (*stats).bytes += u64::from(bytes);
                (*stats).flows += u64::from(new_flow);
            }
        }
    }

    #[inline(always)]
    fn active(&self, backend: u32) -> i64 {
        ACTIVE.get(backend).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn more_active(&self, backend: u32, flows: i64) {
        if let Some(count) = ACTIVE.get_ptr_mut(backend) {
            // SAFETY: an aligned word that lives as long as the map, and that nobody writes but like this.
            unsafe { atomic::add(count, flows) };
        }
    }

    #[inline(always)]
    fn served(&self, key: &ServedKey) -> Option<Served> {
        // SAFETY: see above.
        unsafe { SERVED.get(key) }.copied()
    }

    #[inline(always)]
    fn note(&self, index: u32, sign: Sign) {
        if let Some(signs) = SIGNS.get_ptr_mut(index) {
            // SAFETY: as in `more_active`; the index of a sign is within.
            unsafe { atomic::add(&raw mut (*signs).0[sign as usize & 3], 1) };
        }
    }

    #[inline(always)]
    fn sign(&self, packet: &Packet, seen: Seen, of: u32) {
        steps::mesh_sign(packet, seen as u32, of);
    }

    #[inline(always)]
    fn answer(&self, packet: &mut Packet) -> Verdict {
        Verdict(steps::mesh_answer(packet))
    }

    #[inline(always)]
    fn error(&self, packet: &mut Packet) -> Verdict {
        Verdict(steps::mesh_error(packet))
    }

    #[inline(always)]
    fn pick(&self, packet: &Packet) -> u32 {
        steps::mesh_pick(packet)
    }

    #[inline(always)]
    fn origin(&self, packet: &mut Packet, proto: u8, put: bool) -> bool {
        steps::mesh_origin(packet, u32::from(proto), u32::from(put)) != 0
    }

    #[inline(always)]
    fn retrace(&self, packet: &mut Packet) -> Head {
        Head(steps::mesh_retrace(packet))
    }

    #[inline(always)]
    fn undo(&self, packet: &mut Packet) -> Head {
        Head(steps::mesh_undo(packet))
    }

    #[inline(always)]
    fn readmit(&self, packet: &mut Packet, head: Head) -> Head {
        Head(steps::mesh_readmit(packet, head.0))
    }

    #[inline(always)]
    fn begin(&self, packet: &mut Packet, head: Head) -> Verdict {
        Verdict(steps::mesh_begin(packet, head.0))
    }

    #[inline(always)]
    fn place(&self, packet: &Packet, may_insert: bool) -> bool {
        steps::mesh_place(packet, u32::from(may_insert)) != 0
    }
}

#[inline(always)]
fn is_set(hash: u32) -> bool {
    VIP_BITS.get(hash >> 6 & (VIP_WORDS - 1)).is_some_and(|word| word >> (hash & 63) & 1 != 0)
}
