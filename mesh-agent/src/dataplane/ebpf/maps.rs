//! **Effect.** The maps as the agent holds them: reads what is there, carries out steps.

mod former;

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use mesh_ebpf::abi::{
    Addr16, Backend, Config, Endpoint, Frontend, FrontendKey, MacKey, Network, PORT_WORDS, Peer, SlotLine,
    SourceKey, Stats, TCP, VIP_WORDS, map,
};
use mesh_ebpf::verdict::EVENTS;

use super::EbpfError;
use super::books::{Found, Running, Sizes, Step};
use super::mapped::{Mapped, Paged};
use super::pinned::Pinned;
use crate::plane::{DIFFERS, Drift, MISSING, UNPLANNED};

pub(super) use self::former::Former;

/// So many backends are written each by itself; of more all are mapped at once.
const FEW: usize = 32;

/// How many entries each map has whose size is the agent's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) sizes: Sizes,
    /// Buckets of four flows; powers of two.
    pub(super) tcp_buckets: u32,
    pub(super) udp_buckets: u32,
}

impl Limits {
    /// By name.
    pub(super) fn entries(&self) -> [(&'static str, u32); 22] {
        let Sizes { backends, slots, frontends, peers } = self.sizes;
        [
            (map::FRONTENDS, frontends),
            (map::SLOTS, (1 << slots) / mesh_ebpf::abi::SLOT_LINE),
            (map::BACKENDS, backends),
            (map::PEERS, peers),
            (map::PEER_IDS, peers),
            (map::ENDPOINTS, 8192),
            (map::MACS, 8192),
            (map::NETWORKS, 4096),
            (map::LOCALS, 4096),
            (map::SOURCES, 65_536),
            (map::AFFINITY, 65_536),
            (map::FLOWS_TCP, self.tcp_buckets),
            (map::FLOWS_UDP, self.udp_buckets),
            (map::EVENTS, EVENTS),
            (map::STATS, backends),
            (map::ACTIVE, backends),
            (map::PORTS, PORT_WORDS),
            (map::VIP_BITS, VIP_WORDS),
            (map::CONFIG, 1),
            (map::NETNS, 8192),
            (map::SOCK_REV, 65_536),
            (map::SOCK_FWD, 65_536),
        ]
    }
}

/// All maps that the agent reads or writes.
pub(super) struct Maps {
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    slots: Paged<SlotLine>,
    backends: Paged<Backend>,
    peers: aya::maps::Array<MapData, Peer>,
    peer_ids: HashMap<MapData, Addr16, u32>,
    networks: HashMap<MapData, u32, Network>,
    endpoints: HashMap<MapData, u32, Endpoint>,
    macs: HashMap<MapData, MacKey, Endpoint>,
    locals: HashMap<MapData, Addr16, u32>,
    sources: LpmTrie<MapData, SourceKey, u32>,
    ports: Mapped<u64>,
    vips: Mapped<u64>,
    active: Paged<i64>,
    pub(super) config: SharedConfig,
    stats: PerCpuArray<MapData, Stats>,
    events: PerCpuArray<MapData, u64>,
}

/// The memory of some backends, while they are written.
struct Near {
    backends: Mapped<Backend>,
    active: Mapped<i64>,
}

impl Maps {
    /// Those that are pinned.
    pub(super) fn open(maps: &Pinned) -> Result<Self, EbpfError> {
        Ok(Self {
            frontends: maps.open(map::FRONTENDS)?,
            slots: maps.paged(map::SLOTS)?,
            backends: maps.paged(map::BACKENDS)?,
            peers: maps.open(map::PEERS)?,
            peer_ids: maps.open(map::PEER_IDS)?,
            networks: maps.open(map::NETWORKS)?,
            endpoints: maps.open(map::ENDPOINTS)?,
            macs: maps.open(map::MACS)?,
            locals: maps.open(map::LOCALS)?,
            sources: maps.open(map::SOURCES)?,
            ports: maps.mapped(map::PORTS)?,
            vips: maps.mapped(map::VIP_BITS)?,
            active: maps.paged(map::ACTIVE)?,
            config: SharedConfig(Arc::new(Mutex::new(maps.mapped(map::CONFIG)?))),
            stats: maps.open(map::STATS)?,
            events: maps.open(map::EVENTS)?,
        })
    }

    /// What they hold.
    pub(super) fn found(&self) -> Result<Found, EbpfError> {
        let backends = self.backends()?;
        let backends = (1..backends.len())
            .map(|id| (id as u32, backends.get(id)))
            .filter(|(_, value)| value.generation != 0)
            .collect();
        let peers = all(&self.peer_ids, map::PEER_IDS)?
            .into_iter()
            .filter_map(|(addr, number)| Some((addr, number, self.peers.get(&number, 0).ok()?)))
            .collect();
        let sources: Result<Vec<_>, MapError> =
            self.sources.keys().map(|key| key.map(|key| (key.prefix_len(), key.data()))).collect();
        Ok(Found {
            backends,
            peers,
            frontends: all(&self.frontends, map::FRONTENDS)?,
            sources: sources.map_err(|source| map_error(map::SOURCES, source))?,
            networks: all(&self.networks, map::NETWORKS)?,
            endpoints: all(&self.endpoints, map::ENDPOINTS)?,
            macs: all(&self.macs, map::MACS)?,
            locals: all(&self.locals, map::LOCALS)?.into_iter().map(|(addr, _)| addr).collect(),
            ports: words_with_bits(&self.ports),
            vips: words_with_bits(&self.vips),
            running: Running::new(),
        })
    }

    /// How many flows each backend has, by what programs counted.
    pub(super) fn active(&self) -> Result<Vec<i64>, EbpfError> {
        let active = self.active.all().map_err(|source| share_error(map::ACTIVE, source))?;
        Ok((0..active.len()).map(|id| active.get(id)).collect())
    }

    /// Corrects it by as much.
    pub(super) fn add_active(&self, corrections: impl Iterator<Item = (u32, i64)>) -> Result<(), EbpfError> {
        let active = self.active.all().map_err(|source| share_error(map::ACTIVE, source))?;
        corrections.for_each(|(id, flows)| active.add(id as usize, flows));
        Ok(())
    }

    /// All backends.
    pub(super) fn backends(&self) -> Result<Mapped<Backend>, EbpfError> {
        self.backends.all().map_err(|source| share_error(map::BACKENDS, source))
    }

    /// Carries them out, one after the other. How many changed something.
    pub(super) fn write(&mut self, steps: &[Step]) -> Result<usize, EbpfError> {
        let of_backends = steps.iter().filter(|step| matches!(step, Step::Backend(..))).count();
        let mut all = if of_backends > FEW { Some(self.near(0..self.backends.len())?) } else { None };
        let mut changed = 0;
        for step in steps {
            changed += usize::from(self.write_one(step, all.as_mut())?);
        }
        Ok(changed)
    }

    /// False: that is how it was.
    fn write_one(&mut self, step: &Step, all: Option<&mut Near>) -> Result<bool, EbpfError> {
        match step {
            Step::Slots(start, slots) => {
                let lines = slots.lines();
                let (first, mut slots) = self.slots(*start, &lines)?;
                let mut changed = false;
                for (line, index) in lines.iter().zip(first..) {
                    if slots.get(index) != *line {
                        slots.set(index, *line);
                        changed = true;
                    }
                }
                Ok(changed)
            }
            Step::PortWord(index, word) => Ok(put_word(&mut self.ports, *index, *word)),
            Step::VipWord(index, word) => Ok(put_word(&mut self.vips, *index, *word)),
            Step::Backend(id, backend) => {
                match all {
                    Some(all) => self.put_backend(all, *id, *backend)?,
                    None => {
                        self.put_backend(&mut self.near(*id as usize..*id as usize + 1)?, *id, *backend)?
                    }
                }
                Ok(true)
            }
            other => self.put_entry(other).map(|()| true),
        }
    }

    /// Notes what is not as a step would make it.
    pub(super) fn look(&self, step: &Step, drift: &Drift) {
        let (object, why) = match step {
            Step::Peer(number, peer) => {
                let is = self.peers.get(number, 0).ok().filter(|peer| *peer != Peer::default());
                (format!("peer {number}"), differs(is, Some(*peer).filter(|peer| *peer != Peer::default())))
            }
            Step::PeerId(addr, number) => (
                format!("number of node {}", IpAddr::from(*addr)),
                differs(get(&self.peer_ids, addr), *number),
            ),
            Step::Network(vni, network) => {
                (format!("network {vni}"), differs(get(&self.networks, vni), *network))
            }
            Step::Endpoint(device, endpoint) => {
                (format!("endpoint of device {device}"), differs(get(&self.endpoints, device), *endpoint))
            }
            Step::Mac(mac, endpoint) => (format!("{mac:?}"), differs(get(&self.macs, mac), *endpoint)),
            Step::Local(addr, there) => {
                let is = get(&self.locals, addr);
                (format!("address {} of the node", IpAddr::from(*addr)), differs(is, there.then_some(1)))
            }
            Step::Backend(id, backend) => {
                // What cannot be looked at is not known to be as planned.
                let at = *id as usize;
                let is = self.backends.some(at..at + 1).ok().map(|page| page.get(at));
                (format!("backend {}", IpAddr::from(backend.addr)), differs(is, Some(*backend)))
            }
            Step::Slots(start, slots) => {
                let lines = slots.lines();
                let differ = match self.slots(*start, &lines) {
                    Ok((first, slots)) => {
                        lines.iter().zip(first..).any(|(line, index)| slots.get(index) != *line)
                    }
                    Err(_) => true,
                };
                (format!("slots from {start}"), differ.then_some(DIFFERS))
            }
            Step::Source(bits, key, there) => {
                // An exact one is not to be asked for: a longer or shorter one may answer. The step is exact.
                (format!("source {key:?}/{bits}"), Some(if *there { MISSING } else { UNPLANNED }))
            }
            Step::Frontend(key, frontend) => {
                (format!("frontend {}", words(key)), differs(get(&self.frontends, key), *frontend))
            }
            Step::PortWord(index, word) => {
                let differ = self.ports.get(*index as usize) != *word;
                (format!("word {index} of published ports"), differ.then_some(DIFFERS))
            }
            Step::VipWord(index, word) => {
                let differ = self.vips.get(*index as usize) != *word;
                (format!("word {index} of VIPs"), differ.then_some(DIFFERS))
            }
        };
        if let Some(why) = why {
            drift.note(object, why);
        }
    }

    /// Where a table begins, and its memory.
    fn slots(&self, start: u32, lines: &[SlotLine]) -> Result<(usize, Mapped<SlotLine>), EbpfError> {
        let first = (start / mesh_ebpf::abi::SLOT_LINE) as usize;
        let slots = self.slots.some(first..first + lines.len());
        Ok((first, slots.map_err(|source| share_error(map::SLOTS, source))?))
    }

    fn put_entry(&mut self, step: &Step) -> Result<(), EbpfError> {
        match step {
            Step::Peer(number, peer) => {
                self.peers.set(*number, peer, 0).map_err(|source| map_error(map::PEERS, source))
            }
            Step::PeerId(addr, number) => put(&mut self.peer_ids, map::PEER_IDS, addr, number.as_ref()),
            Step::Network(vni, network) => put(&mut self.networks, map::NETWORKS, vni, network.as_ref()),
            Step::Endpoint(device, endpoint) => {
                put(&mut self.endpoints, map::ENDPOINTS, device, endpoint.as_ref())
            }
            Step::Mac(mac, endpoint) => put(&mut self.macs, map::MACS, mac, endpoint.as_ref()),
            Step::Local(addr, there) => put(&mut self.locals, map::LOCALS, addr, there.then_some(&1)),
            Step::Source(bits, key, there) => self.put_source(&Key::new(*bits, *key), *there),
            Step::Frontend(key, frontend) => put(&mut self.frontends, map::FRONTENDS, key, frontend.as_ref()),
            Step::Backend(..) | Step::Slots(..) | Step::PortWord(..) | Step::VipWord(..) => Ok(()),
        }
    }

    /// The memory around some backends.
    fn near(&self, ids: Range<usize>) -> Result<Near, EbpfError> {
        let backends = self.backends.some(ids.clone());
        let active = self.active.some(ids);
        Ok(Near {
            backends: backends.map_err(|source| share_error(map::BACKENDS, source))?,
            active: active.map_err(|source| share_error(map::ACTIVE, source))?,
        })
    }

    /// A program may read it at any moment: while more than the state changes, nobody is there.
    fn put_backend(&mut self, near: &mut Near, id: u32, backend: Backend) -> Result<(), EbpfError> {
        use std::sync::atomic::{Ordering, fence};
        let Near { backends, active } = near;
        let at = id as usize;
        let now = backends.get(at);
        if now.generation != backend.generation {
            // Of one that never was nothing was counted.
            if now.generation != 0 {
                self.forget_stats(id)?;
            }
            active.set(at, 0);
        }
        if (Backend { state: backend.state, ..now }) != backend {
            backends.set(at, Backend { state: 0, ..now });
            fence(Ordering::SeqCst);
            backends.set(at, Backend { state: 0, ..backend });
            fence(Ordering::SeqCst);
        }
        backends.set(at, backend);
        Ok(())
    }

    /// What a former task got with this number is not its successor's.
    fn forget_stats(&mut self, id: u32) -> Result<(), EbpfError> {
        let cpus = aya::util::nr_cpus().map_err(|(what, source)| EbpfError::Cpus { what, source })?;
        let zeros = PerCpuValues::try_from(vec![Stats::default(); cpus])
            .map_err(|source| EbpfError::Cpus { what: "count", source })?;
        self.stats.set(id, zeros, 0).map_err(|source| map_error(map::STATS, source))
    }

    fn put_source(&mut self, key: &Key<SourceKey>, there: bool) -> Result<(), EbpfError> {
        let done = if there { self.sources.insert(key, 1, 0) } else { self.sources.remove(key) };
        gone_is_removed(done).map_err(|source| map_error(map::SOURCES, source))
    }
}

/// The node's configuration, which several parts of the agent change.
#[derive(Clone)]
pub(super) struct SharedConfig(Arc<Mutex<Mapped<Config>>>);

impl SharedConfig {
    pub(super) fn get(&self) -> Config {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(0)
    }

    /// Changes what is to be changed, whatever others change meanwhile.
    pub(super) fn change(&self, change: impl FnOnce(&mut Config)) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = map.get(0);
        let mut then = now;
        change(&mut then);
        if then != now {
            map.set(0, then);
        }
    }
}

pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, EbpfError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(EbpfError::Incomplete { kind: "map", name })?;
    map.try_into().map_err(|source| map_error(name, source))
}

pub(super) fn all<K: Pod, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<(K, V)>, EbpfError> {
    map.iter().collect::<Result<_, _>>().map_err(|source| map_error(name, source))
}

pub(super) fn put<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
    value: Option<&V>,
) -> Result<(), EbpfError> {
    let done = match value {
        Some(value) => map.insert(key, value, 0),
        None => map.remove(key),
    };
    gone_is_removed(done).map_err(|source| map_error(name, source))
}

fn get<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, key: &K) -> Option<V> {
    map.get(key, 0).ok()
}

fn differs<T: PartialEq>(is: Option<T>, planned: Option<T>) -> Option<&'static str> {
    match (is, planned) {
        (None, Some(_)) => Some(MISSING),
        (Some(_), None) => Some(UNPLANNED),
        (is, planned) => (is != planned).then_some(DIFFERS),
    }
}

fn words(key: &FrontendKey) -> String {
    let FrontendKey { addr, port, proto, scope: _ } = *key;
    match (IpAddr::from(addr), proto) {
        (addr, 0) => addr.to_string(),
        (addr, TCP) => format!("{}/tcp", SocketAddr::new(addr, port.number())),
        (addr, _) => format!("{}/udp", SocketAddr::new(addr, port.number())),
    }
}

fn words_with_bits(words: &Mapped<u64>) -> Vec<(u32, u64)> {
    let all = (0..words.len()).map(|index| (index as u32, words.get(index)));
    all.filter(|(_, word)| *word != 0).collect()
}

/// Whether the word was another one.
fn put_word(map: &mut Mapped<u64>, index: u32, word: u64) -> bool {
    let index = index as usize;
    let changed = map.get(index) != word;
    if changed {
        map.set(index, word);
    }
    changed
}

fn gone_is_removed(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

pub(super) fn share_error(map: &'static str, source: std::io::Error) -> EbpfError {
    EbpfError::Share { map, source }
}

pub(super) fn map_error(map: &'static str, source: MapError) -> EbpfError {
    EbpfError::Map { map, source: Box::new(source) }
}
