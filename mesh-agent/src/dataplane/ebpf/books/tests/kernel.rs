//! Maps in memory.

use mesh_ebpf::abi::{SLOT_LINE, SlotLine};

use super::*;

/// A frontend without its numbers, where each of its slots leads, and its sources.
type Meaning = (Frontend, Vec<IpAddr>, BTreeSet<(u32, Addr16)>);

/// The maps.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    pub(super) frontends: BTreeMap<FrontendKey, Frontend>,
    pub(super) slots: BTreeMap<u32, SlotLine>,
    pub(super) backends: BTreeMap<u32, Backend>,
    pub(super) peers: BTreeMap<u32, Peer>,
    pub(super) peer_ids: BTreeMap<Addr16, u32>,
    pub(super) networks: BTreeMap<u32, Network>,
    pub(super) endpoints: BTreeMap<u32, Endpoint>,
    pub(super) macs: BTreeMap<MacKey, Endpoint>,
    pub(super) locals: BTreeSet<Addr16>,
    pub(super) sources: BTreeSet<(u32, SourceKey)>,
    pub(super) ports: BTreeMap<u32, u64>,
    pub(super) vips: BTreeMap<u32, u64>,
    /// Where connections lead that go on.
    pub(super) running: Running,
}

impl Kernel {
    pub(super) fn carry_out(&mut self, step: &Step) {
        fn put<K: Ord + Copy, V: Copy>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => _ = map.insert(key, value),
                None => _ = map.remove(&key),
            }
        }
        match step.clone() {
            Step::Peer(number, peer) => _ = self.peers.insert(number, peer),
            Step::PeerId(addr, number) => put(&mut self.peer_ids, addr, number),
            Step::Network(vni, network) => put(&mut self.networks, vni, network),
            Step::Endpoint(device, endpoint) => put(&mut self.endpoints, device, endpoint),
            Step::Mac(mac, endpoint) => put(&mut self.macs, mac, endpoint),
            Step::Local(addr, true) => _ = self.locals.insert(addr),
            Step::Local(addr, false) => _ = self.locals.remove(&addr),
            Step::Backend(id, backend) => _ = self.backends.insert(id, backend),
            Step::Slots(start, slots) => {
                for (line, at) in slots.lines().into_iter().zip(start / SLOT_LINE..) {
                    self.slots.insert(at, line);
                }
            }
            Step::Source(bits, key, true) => _ = self.sources.insert((bits, key)),
            Step::Source(bits, key, false) => _ = self.sources.remove(&(bits, key)),
            Step::Frontend(key, frontend) => put(&mut self.frontends, key, frontend),
            Step::PortWord(index, word) => _ = self.ports.insert(index, word),
            Step::VipWord(index, word) => _ = self.vips.insert(index, word),
        }
    }

    /// The backends in a frontend's slots.
    pub(super) fn behind(&self, frontend: &Frontend) -> BTreeSet<u32> {
        if frontend.backends == 0 {
            return BTreeSet::new();
        }
        let lines = frontend.slots / SLOT_LINE..=(frontend.slots + frontend.mask) / SLOT_LINE;
        lines.flat_map(|line| self.slots[&line]).filter(|id| *id != 0).collect()
    }

    /// What holds at every moment: whoever has backends finds one that lives.
    pub(super) fn check(&self) {
        for (key, frontend) in &self.frontends {
            if frontend.backends == 0 {
                continue;
            }
            let live = self.behind(frontend).into_iter().filter(|id| self.backends[id].is_active()).count();
            assert!(live > 0, "{key:?} leads nowhere");
        }
    }

    /// What programs make of the maps: to which address each slot of each frontend leads, and who may use it. Which
    /// numbers stand for what is the books' own affair.
    pub(super) fn meaning(&self) -> BTreeMap<FrontendKey, Meaning> {
        let mean = |(key, frontend): (&FrontendKey, &Frontend)| {
            let slots = frontend.slots..=frontend.slots + frontend.mask;
            let id = |slot: u32| self.slots[&(slot / SLOT_LINE)][(slot % SLOT_LINE) as usize];
            let addresses = match frontend.backends {
                0 => Vec::new(),
                _ => slots.map(|slot| IpAddr::from(self.backends[&id(slot)].addr)).collect(),
            };
            let sources = self.sources.iter().filter(|(_, source)| source.frontend == frontend.id);
            let sources = sources.map(|(bits, source)| (*bits, source.addr)).collect();
            (*key, (Frontend { id: 0, slots: 0, ..*frontend }, addresses, sources))
        };
        self.frontends.iter().map(mean).collect()
    }

    /// Carries out what is asked for in one round, and looks at each moment of it.
    pub(super) fn round(&mut self, books: &mut Books, steps: &[Step], look: impl Fn(&Self)) {
        for step in steps {
            self.carry_out(step);
            look(self);
        }
        if books.is_unsettled() {
            for step in books.settle(&self.running) {
                self.carry_out(&step);
                look(self);
            }
        }
    }

    /// What is known of a port by its bits.
    pub(super) fn bits(&self, port: u16) -> u64 {
        let (index, shift) = Published::place(TCP, NetPort::new(port));
        self.ports.get(&index).copied().unwrap_or_default() >> shift & 3
    }

    /// Whether the filter of VIPs has no bits at all.
    pub(super) fn knows_no_vips(&self) -> bool {
        self.vips.values().all(|word| *word == 0)
    }

    /// What another agent finds.
    pub(super) fn found(&self) -> Found {
        fn all<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
            map.iter().map(|(key, value)| (*key, *value)).collect()
        }
        Found {
            backends: all(&self.backends),
            peers: self.peer_ids.iter().map(|(addr, number)| (*addr, *number, self.peers[number])).collect(),
            frontends: all(&self.frontends),
            sources: self.sources.iter().copied().collect(),
            networks: all(&self.networks),
            endpoints: all(&self.endpoints),
            macs: all(&self.macs),
            locals: self.locals.iter().copied().collect(),
            ports: all(&self.ports),
            vips: all(&self.vips),
            running: self.running.clone(),
        }
    }
}
