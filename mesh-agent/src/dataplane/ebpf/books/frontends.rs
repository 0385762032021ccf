//! **Decision.** Frontends, their slots and who may use them. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use mesh_core::maglev::{self, Weighted};
use mesh_core::model::{Affinity, Balancing, Protocol, ReturnPath, Vni, fnv64};
use mesh_core::plan::{self, Family, Pool};
use mesh_ebpf::abi::{
    Addr16, FrontendKey, NetPort, Published, SLOT_LINE, SlotLine, SourceKey, TCP, UDP, VIP_WORDS,
};
use mesh_ebpf::hash;

use super::super::ids::Ids;
use super::super::runs::Runs;
use super::{Backends, Found, Problems, Sizes, Step};

/// What is known of a frontend.
#[derive(Debug)]
struct Known {
    value: mesh_ebpf::abi::Frontend,
    sources: BTreeSet<(u32, SourceKey)>,
    holds: Vec<(Vni, IpAddr)>,
    /// It was found, and nobody has looked yet whether the filters know it.
    found: bool,
}

/// All frontends.
pub(in super::super) struct Frontends {
    /// What was asked for last.
    pools: BTreeMap<plan::Frontend, Pool>,
    known: BTreeMap<FrontendKey, Known>,
    ids: Ids,
    runs: Runs,
    /// Runs that a program may still look into.
    limbo: Vec<(u32, u32)>,
    ports: BTreeMap<u32, u64>,
    vips: VipBits,
}

/// How many VIPs need each bit of the filter.
#[derive(Debug, Default)]
struct VipBits(BTreeMap<u32, u32>);

impl Frontends {
    pub(super) fn open(sizes: &Sizes, found: &Found) -> Self {
        let mut ids = Ids::new(1..sizes.frontends);
        let mut runs = Runs::new(sizes.slots);
        let mut known = BTreeMap::new();
        let mut vips = VipBits::default();
        let mut ports = BTreeMap::new();
        let sources = |id| found.sources.iter().filter(move |(_, key)| key.frontend == id).copied().collect();
        for (key, value) in &found.frontends {
            if ids.take_that(value.id) && runs.take_at(value.slots, order_of(value.mask)) {
                known.insert(
                    *key,
                    Known { value: *value, sources: sources(value.id), holds: Vec::new(), found: true },
                );
                note_bits(key, true, &mut ports, &mut vips);
            }
        }
        Self { pools: BTreeMap::new(), known, ids, runs, limbo: Vec::new(), ports, vips }
    }

    pub(super) fn put(
        &mut self,
        want: &BTreeMap<plan::Frontend, Pool>,
        backends: &mut Backends,
        steps: &mut Vec<Step>,
        problems: &mut Problems,
    ) {
        for (start, order) in std::mem::take(&mut self.limbo) {
            self.runs.give_back(start, order);
        }
        let mut gone: BTreeSet<FrontendKey> = BTreeSet::new();
        if self.pools.is_empty() {
            // The first round: what another agent left and nobody wants any more.
            gone = self.known.keys().copied().collect();
        }
        for at in want.keys() {
            gone.remove(&key_of(at));
        }
        for at in self.pools.keys().filter(|at| !want.contains_key(at)) {
            gone.insert(key_of(at));
        }
        let stale: Vec<plan::Frontend> =
            self.pools.keys().filter(|at| !want.contains_key(at)).cloned().collect();
        for at in stale {
            self.pools.remove(&at);
        }
        for (at, pool) in want {
            // A backend may have become known since.
            let whole =
                self.known.get(&key_of(at)).is_some_and(|known| known.holds.len() == pool.backends.len());
            if whole && self.pools.get(at) == Some(pool) {
                continue;
            }
            match self.put_one(key_of(at), pool, backends, steps) {
                Ok(()) => _ = self.pools.insert(at.clone(), pool.clone()),
                Err(why) => _ = problems.insert(format!("service {}", pool.service), why),
            }
        }
        for key in gone {
            self.remove(&key, backends, steps);
        }
    }

    fn put_one(
        &mut self,
        key: FrontendKey,
        pool: &Pool,
        backends: &mut Backends,
        steps: &mut Vec<Step>,
    ) -> Result<(), String> {
        let reached: Vec<_> = pool
            .backends
            .iter()
            .filter_map(|backend| Some((backend, backends.id(&(pool.vni, backend.address))?)))
            .collect();
        let order = maglev::size(reached.len()).max(SLOT_LINE).trailing_zeros();
        let old = self.known.remove(&key);
        let (id, slots) = match self.room(&old, order) {
            Ok(room) => room,
            Err(why) => {
                self.known.extend(old.map(|old| (key, old)));
                return Err(why);
            }
        };
        let holds: Vec<_> = reached.iter().map(|(backend, _)| (pool.vni, backend.address)).collect();
        for held in &holds {
            backends.hold(*held, steps);
        }
        let weighted: Vec<_> = reached
            .iter()
            .map(|(backend, id)| {
                let key = fnv64(format!("{}/{}", backend.id, pool.vni.0).as_bytes());
                Weighted { key, weight: backend.weight, value: *id }
            })
            .collect();
        let value = value_of(id, slots, order, pool, reached.len());
        let is_new = old.as_ref().is_none_or(|old| old.value != value);
        if is_new && reached.is_empty() {
            // Before its slots are emptied: then nobody looks into them.
            steps.push(Step::Frontend(key, Some(value)));
        }
        steps.push(Step::Slots(slots, table(&weighted, order)));
        let sources = sources(id, &pool.allow);
        let known = old.as_ref().map(|old| old.sources.clone()).unwrap_or_default();
        steps.extend(sources.difference(&known).map(|(bits, source)| Step::Source(*bits, *source, true)));
        if is_new && !reached.is_empty() {
            steps.push(Step::Frontend(key, Some(value)));
        }
        steps.extend(known.difference(&sources).map(|(bits, source)| Step::Source(*bits, *source, false)));
        match old {
            None => self.bits(&key, true, steps),
            Some(old) => {
                if old.found {
                    steps.extend(words(&key, &self.ports, &self.vips));
                }
                for held in old.holds {
                    backends.release(held);
                }
                if old.value.slots != slots {
                    self.limbo.push((old.value.slots, order_of(old.value.mask)));
                }
            }
        }
        self.known.insert(key, Known { value, sources, holds, found: false });
        Ok(())
    }

    /// A number and a run of slots: those that it has, if they are of the right size.
    fn room(&mut self, old: &Option<Known>, order: u32) -> Result<(u32, u32), String> {
        let full = "there is no room for its slots; remove services that are not needed";
        match old {
            Some(old) if order_of(old.value.mask) == order => Ok((old.value.id, old.value.slots)),
            Some(old) => Ok((old.value.id, self.runs.take(order).ok_or(full)?)),
            None => {
                let slots = self.runs.take(order).ok_or(full)?;
                let Some(id) = self.ids.take() else {
                    self.runs.give_back(slots, order);
                    return Err("there is no room for another frontend".to_owned());
                };
                Ok((id, slots))
            }
        }
    }

    fn remove(&mut self, key: &FrontendKey, backends: &mut Backends, steps: &mut Vec<Step>) {
        let Some(old) = self.known.remove(key) else { return };
        steps.push(Step::Frontend(*key, None));
        self.bits(key, false, steps);
        steps.extend(old.sources.iter().map(|(bits, source)| Step::Source(*bits, *source, false)));
        for held in old.holds {
            backends.release(held);
        }
        self.ids.give_back(old.value.id);
        self.limbo.push((old.value.slots, order_of(old.value.mask)));
    }

    fn bits(&mut self, key: &FrontendKey, set: bool, steps: &mut Vec<Step>) {
        let same = |key: &FrontendKey| (key.port, key.proto, key.scope, bits_of(key));
        let others = |known: &BTreeMap<FrontendKey, Known>| known.keys().any(|other| same(other) == same(key));
        // A port may be published on several addresses, and for both families.
        if key.port != NetPort::ANY && !set && others(&self.known) {
            return;
        }
        steps.extend(note_bits(key, set, &mut self.ports, &mut self.vips));
    }
}

/// The words of a filter that change when a frontend comes or goes.
fn note_bits(key: &FrontendKey, set: bool, ports: &mut BTreeMap<u32, u64>, vips: &mut VipBits) -> Vec<Step> {
    if key.port == NetPort::ANY {
        vips.note(&key.addr, set);
    } else {
        let (index, shift) = Published::place(key.proto, key.port);
        let word = ports.entry(index).or_default();
        let bit = bits_of(key).0 << shift;
        *word = if set { *word | bit } else { *word & !bit };
    }
    words(key, ports, vips)
}

/// The words of the filters that a frontend has bits in, as they are to be.
fn words(key: &FrontendKey, ports: &BTreeMap<u32, u64>, vips: &VipBits) -> Vec<Step> {
    if key.port == NetPort::ANY {
        let words: BTreeSet<u32> = VipBits::of(&key.addr).map(|bit| bit / 64).into();
        return words.into_iter().map(|index| Step::VipWord(index, vips.word(index))).collect();
    }
    let (index, _) = Published::place(key.proto, key.port);
    vec![Step::PortWord(index, ports.get(&index).copied().unwrap_or_default())]
}

/// What a published port's frontend adds to what is known of the port.
fn bits_of(key: &FrontendKey) -> Published {
    let everywhere = [Addr16::ANY_V4, Addr16::ANY_V6].contains(&key.addr);
    if everywhere { Published::EVERYWHERE } else { Published::SOMEWHERE }
}

impl VipBits {
    /// The bits of an address.
    fn of(addr: &Addr16) -> [u32; 2] {
        let (a, b) = hash::bloom(addr);
        [a, b].map(|hash| hash % (VIP_WORDS * 64))
    }

    fn note(&mut self, addr: &Addr16, set: bool) {
        for bit in Self::of(addr) {
            let count = self.0.entry(bit).or_default();
            *count = if set { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.0.remove(&bit);
            }
        }
    }

    fn word(&self, index: u32) -> u64 {
        self.0.range(index * 64..(index + 1) * 64).fold(0, |word, (bit, _)| word | 1 << (bit % 64))
    }
}

/// The slots of a pool, in whole lines.
fn table(weighted: &[Weighted], order: u32) -> Vec<SlotLine> {
    let mut slots = vec![0; 1 << order];
    maglev::fill(weighted, &mut slots);
    slots.chunks_exact(SLOT_LINE as usize).filter_map(|line| line.try_into().ok()).collect()
}

fn order_of(mask: u32) -> u32 {
    (mask + 1).trailing_zeros()
}

fn key_of(at: &plan::Frontend) -> FrontendKey {
    match at {
        plan::Frontend::Vip { vni: _, address } => FrontendKey::vip((*address).into()),
        plan::Frontend::Published { protocol, port, address, family } => {
            let any = match family {
                Family::V4 => Addr16::ANY_V4,
                Family::V6 => Addr16::ANY_V6,
            };
            let proto = match protocol {
                Protocol::Tcp => TCP,
                Protocol::Udp => UDP,
            };
            FrontendKey::published(address.map_or(any, Addr16::from), NetPort::new(*port), proto)
        }
    }
}

fn value_of(id: u32, slots: u32, order: u32, pool: &Pool, backends: usize) -> mesh_ebpf::abi::Frontend {
    use mesh_ebpf::abi::{Frontend, Timeouts};
    let mut flags = match pool.balancing {
        Balancing::Random => 0,
        Balancing::Maglev => Frontend::HASHED,
        Balancing::LeastConn => Frontend::LEAST,
    };
    flags |= match pool.return_path {
        ReturnPath::Tunnel => 0,
        ReturnPath::Dsr => Frontend::DSR,
        ReturnPath::Snat => Frontend::SNAT,
    };
    if !pool.allow.is_empty() {
        flags |= Frontend::GUARDED;
    }
    if let Some(idle) = pool.idle {
        let seconds = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX);
        flags |= (Timeouts::step(seconds) as u16) << Frontend::IDLE;
    }
    let affinity = match pool.affinity {
        Affinity::None => 0,
        // A tick is a little more than a second.
        Affinity::ClientIp { timeout } => u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX).max(1),
    };
    Frontend {
        slots,
        mask: (1 << order) - 1,
        backends: u32::try_from(backends).unwrap_or(u32::MAX),
        vni: pool.vni.0,
        id,
        affinity,
        target: pool.target.map_or(NetPort::ANY, NetPort::new),
        flags,
    }
}

/// The clients of a guarded frontend, with the length of their prefixes in the trie.
fn sources(id: u32, allow: &[IpNet]) -> BTreeSet<(u32, SourceKey)> {
    allow
        .iter()
        .map(|net| {
            let mapped = if net.addr().is_ipv4() { 96 } else { 0 };
            let bits = SourceKey::FIXED_BITS + mapped + u32::from(net.prefix_len());
            (bits, SourceKey { frontend: id, addr: net.network().into() })
        })
        .collect()
}
