//! **Fact.** What the maps say, for whoever asks: counters, flows, and what would become of a new one.
//!
//! The loop owns the maps that it writes. A view has descriptors and mappings of its own for the same maps, opened by
//! their pins, so that people who look never wait for a round, and no round for them.

mod dry;
mod flows;
mod led;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use mesh_core::model::Vni;
use mesh_ebpf::abi::{
    Addr16, AffinityKey, AffinityValue, Backend, BackendState, Config, Endpoint, Frontend, FrontendKey,
    NO_BACKEND, Network, Peer, SlotLine, SocketKey, SocketOrigin, SourceKey, Stats, TCP, UDP, map,
};
use mesh_ebpf::flow::{Bucket, WAYS};
use mesh_ebpf::verdict::Event;

pub use self::dry::Foreseen;
pub use self::flows::{Asked, Live, Occupancy, State};

use super::EbpfError;
use super::active;
use super::books::Running;
use super::clock::now;
use super::counts::Counts;
use super::mapped::{Mapped, Paged};
use super::maps::{map_error, share_error};
use super::monitor::{Monitor, Watching};
use super::pinned::Pinned;

/// Maps to read.
pub struct View {
    events: PerCpuArray<MapData, u64>,
    stats: Counts,
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    endpoints: HashMap<MapData, u32, Endpoint>,
    networks: HashMap<MapData, u32, Network>,
    locals: HashMap<MapData, Addr16, u32>,
    affinity: HashMap<MapData, AffinityKey, AffinityValue>,
    sources: LpmTrie<MapData, SourceKey, u32>,
    origins: HashMap<MapData, SocketKey, SocketOrigin>,
    peers: Array<MapData, Peer>,
    slots: Paged<SlotLine>,
    ports: Mapped<u64>,
    vips: Mapped<u64>,
    backends: Paged<Backend>,
    config: Mapped<Config>,
    active: Paged<i64>,
    flows_tcp: Paged<Bucket>,
    flows_udp: Paged<Bucket>,
    monitor: Arc<Monitor>,
    /// Whether sockets of this node are led to tasks.
    sockets: bool,
}

/// What a backend got since its task came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// The network of its address.
    pub vni: Vni,
    /// The task's address.
    pub address: IpAddr,
    /// Whether it gets new flows.
    pub active: bool,
    /// How much it got.
    pub stats: Stats,
}

impl Served {
    fn of(backend: &Backend, stats: Stats) -> Self {
        let (vni, address) = (Vni(backend.vni), backend.addr.into());
        Self { vni, address, active: backend.is_active(), stats }
    }
}

impl View {
    /// Of maps that are loaded and pinned.
    pub(super) fn open(maps: &Pinned, monitor: Arc<Monitor>, sockets: bool) -> Result<Self, EbpfError> {
        Ok(Self {
            events: maps.open(map::EVENTS)?,
            stats: Counts::open(maps)?,
            frontends: maps.open(map::FRONTENDS)?,
            endpoints: maps.open(map::ENDPOINTS)?,
            networks: maps.open(map::NETWORKS)?,
            locals: maps.open(map::LOCALS)?,
            affinity: maps.open(map::AFFINITY)?,
            sources: maps.open(map::SOURCES)?,
            origins: maps.open(map::SOCK_REV)?,
            peers: maps.open(map::PEERS)?,
            slots: maps.paged(map::SLOTS)?,
            ports: maps.mapped(map::PORTS)?,
            vips: maps.mapped(map::VIP_BITS)?,
            backends: maps.paged(map::BACKENDS)?,
            config: maps.mapped(map::CONFIG)?,
            active: maps.paged(map::ACTIVE)?,
            flows_tcp: maps.paged(map::FLOWS_TCP)?,
            flows_udp: maps.paged(map::FLOWS_UDP)?,
            monitor,
            sockets,
        })
    }

    /// How often something happened since the maps were made.
    pub fn count(&self, event: Event) -> Result<u64, EbpfError> {
        let values = self.events.get(&(event as u32), 0).map_err(|source| map_error(map::EVENTS, source))?;
        Ok(values.iter().sum())
    }

    /// The same of everything that is counted.
    pub fn events(&self) -> Result<Vec<(Event, u64)>, EbpfError> {
        Event::ALL.iter().map(|event| Ok((*event, self.count(*event)?))).collect()
    }

    /// All backends that there are now.
    pub fn served(&self) -> Result<Vec<Served>, EbpfError> {
        let mut counts = self.stats.look();
        self.known()?.map(|(id, backend)| Ok(Served::of(&backend, counts.of(id)?))).collect()
    }

    /// All backends that there are now, and how many flows each has at this node. Looks at every entry: some milliseconds.
    pub fn loads(&self) -> Result<Vec<(Served, u64)>, EbpfError> {
        let mut flows = BTreeMap::new();
        self.balanced(|flow| *flows.entry((flow.backend, flow.generation)).or_default() += 1)?;
        let mut counts = self.stats.look();
        self.known()?
            .map(|(id, backend)| {
                let count = flows.get(&(id, backend.generation)).copied().unwrap_or_default();
                Ok((Served::of(&backend, counts.of(id)?), count))
            })
            .collect()
    }

    /// A backend by its number.
    pub fn backend(&self, id: u32) -> Option<Backend> {
        if id == NO_BACKEND { None } else { one(&self.backends, id) }
    }

    /// All that are or were in use, by number.
    fn known(&self) -> Result<impl Iterator<Item = (u32, Backend)>, EbpfError> {
        let all = self.backends.all().map_err(|source| share_error(map::BACKENDS, source))?;
        let all = (1..all.len()).map(move |id| (id as u32, all.get(id)));
        Ok(all.filter(|(_, backend)| backend.state != BackendState::Gone as u8))
    }

    /// What becomes of flows from now on.
    pub fn watch(&self) -> Watching {
        self.monitor.watch()
    }

    /// How full the tables of flows are, of TCP and of UDP. Looks at every entry: some milliseconds.
    pub fn occupancy(&self) -> Result<[Occupancy; 2], EbpfError> {
        let (now, timeouts) = (now(), self.config.get(0).timeouts);
        let of = |proto| {
            let table = self.table(proto)?;
            let slots = table.len() * WAYS;
            Ok(Occupancy::of(table.flows(), slots as u64, proto, now, &timeouts))
        };
        Ok([of(TCP)?, of(UDP)?])
    }

    /// How many flows each backend has, of those that are counted.
    pub(super) fn active_flows(&self) -> Result<BTreeMap<u32, i64>, EbpfError> {
        let mut flows = BTreeMap::new();
        self.balanced(|flow| {
            if flow.counted {
                *flows.entry(flow.backend).or_default() += 1;
            }
        })?;
        Ok(flows)
    }

    /// Where connections lead that their tasks still have. Looks at every entry: some milliseconds.
    pub(super) fn running(&self) -> Result<Running, EbpfError> {
        let (now, timeouts) = (now(), self.config.get(0).timeouts);
        let backends = self.backends.all().map_err(|source| share_error(map::BACKENDS, source))?;
        let serves = |id: u32, generation| {
            let known = (id as usize) < backends.len();
            id != NO_BACKEND && known && backends.get(id as usize).serves(generation)
        };
        Ok(active::running(self.table(TCP)?.flows(), now, timeouts, serves).collect())
    }

    fn balanced(&self, mut each: impl FnMut(active::Flow)) -> Result<(), EbpfError> {
        let (now, timeouts) = (now(), self.config.get(0).timeouts);
        for proto in [TCP, UDP] {
            active::flows(self.table(proto)?.flows(), proto, now, timeouts).for_each(&mut each);
        }
        Ok(())
    }

    /// What would become of a flow that began now. The maps stay as they are.
    pub fn foresee(&self, asked: &Asked) -> Foreseen {
        dry::run(self, asked)
    }

    /// The flows of a client that this node balances or serves for another node, at most so many.
    pub fn live(&self, asked: &Asked, most: usize) -> Result<Vec<Live>, EbpfError> {
        let (now, timeouts) = (now(), self.config.get(0).timeouts);
        let table = self.table(asked.proto)?;
        let named = table.flows().filter_map(|flow| self.name(asked.read(&flow, now, &timeouts)?, asked));
        Ok(named.take(most).collect())
    }

    /// Whether an address is the node's own, in the mesh or outside.
    pub fn is_own(&self, address: IpAddr) -> bool {
        let addr = Addr16::from(address);
        let inside = |network: Network| network.v4 == addr || network.v6 == addr;
        address.is_loopback()
            || self.locals.get(&addr, 0).is_ok()
            || self.networks.iter().filter_map(Result::ok).any(|(_, network)| inside(network))
    }

    /// With the backend behind the numbers.
    fn name(&self, read: flows::Read, asked: &Asked) -> Option<Live> {
        let mut live = read.live;
        match read.task {
            flows::Task::Backend { id, generation } => {
                if let Some(backend) = self.backend(id).filter(|backend| backend.serves(generation)) {
                    live.task = Some((Vni(backend.vni), backend.addr.into()));
                }
            }
            flows::Task::At(address, peer) => {
                live.entered = match peer {
                    Some(peer) => Some(self.peers.get(&peer, 0).ok()?.addr.into()),
                    // What came in here, where that was forgotten.
                    None if self.is_own(asked.destination) => return None,
                    None => Some(asked.destination),
                };
                let backend = self.known().ok()?.find(|(_, backend)| backend.addr == address);
                live.task = backend.map(|(_, backend)| (Vni(backend.vni), backend.addr.into()));
            }
        }
        Some(live)
    }

    fn table(&self, proto: u8) -> Result<Mapped<Bucket>, EbpfError> {
        let (table, map) = match proto {
            TCP => (&self.flows_tcp, map::FLOWS_TCP),
            _ => (&self.flows_udp, map::FLOWS_UDP),
        };
        table.all().map_err(|source| share_error(map, source))
    }
}

/// One value, if there is such an index and it can be looked at.
fn one<T: Pod>(values: &Paged<T>, index: u32) -> Option<T> {
    let at = index as usize;
    if at < values.len() { Some(values.some(at..at + 1).ok()?.get(at)) } else { None }
}
