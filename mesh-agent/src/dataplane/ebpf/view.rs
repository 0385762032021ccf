//! **Fact.** What the maps say, for whoever asks: counters, flows, and what would become of a new one.
//!
//! The loop owns the maps that it writes. A view has descriptors and mappings of its own for the same maps, opened by
//! their pins, so that people who look never wait for a round, and no round for them.

mod flows;

use std::net::IpAddr;

use aya::Pod;
use aya::maps::{Map, MapData, MapError, PerCpuArray};
use mesh_core::model::Vni;
use mesh_ebpf::abi::{Backend, BackendState, Config, Stats, TCP, UDP, map};
use mesh_ebpf::flow::{Bucket, TICK};
use mesh_ebpf::verdict::Event;

pub use self::flows::Occupancy;

use super::EbpfError;
use super::mapped::Mapped;
use super::maps::{Limits, map_error};
use super::pins::Pins;

/// Maps to read.
pub struct View {
    events: PerCpuArray<MapData, u64>,
    stats: PerCpuArray<MapData, Stats>,
    backends: Mapped<Backend>,
    config: Mapped<Config>,
    flows_tcp: Mapped<Bucket>,
    flows_udp: Mapped<Bucket>,
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

impl View {
    /// Of maps that are loaded and pinned.
    pub(super) fn open(pins: &Pins, limits: &Limits) -> Result<Self, EbpfError> {
        Ok(Self {
            events: opened(pins, map::EVENTS)?,
            stats: opened(pins, map::STATS)?,
            backends: mapped(pins, map::BACKENDS, limits.sizes.backends)?,
            config: mapped(pins, map::CONFIG, 1)?,
            flows_tcp: mapped(pins, map::FLOWS_TCP, limits.tcp_buckets)?,
            flows_udp: mapped(pins, map::FLOWS_UDP, limits.udp_buckets)?,
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
        let all = (1..self.backends.len()).map(|id| (id as u32, self.backends.get(id)));
        all.filter(|(_, backend)| backend.state != BackendState::Gone as u8)
            .map(|(id, backend)| {
                Ok(Served {
                    vni: Vni(backend.vni),
                    address: backend.addr.into(),
                    active: backend.is_active(),
                    stats: self.stats(id)?,
                })
            })
            .collect()
    }

    fn stats(&self, id: u32) -> Result<Stats, EbpfError> {
        let values = self.stats.get(&id, 0).map_err(|source| map_error(map::STATS, source))?;
        Ok(values.iter().fold(Stats::default(), |sum, one| Stats {
            flows: sum.flows + one.flows,
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        }))
    }

    /// How full the tables of flows are, of TCP and of UDP. Looks at every entry: some milliseconds.
    pub fn occupancy(&self) -> [Occupancy; 2] {
        let (now, timeouts) = (now(), self.config.get(0).timeouts);
        [(TCP, &self.flows_tcp), (UDP, &self.flows_udp)].map(|(proto, table)| {
            Occupancy::of((0..table.len()).map(|index| table.get(index)), proto, now, &timeouts)
        })
    }
}

/// The programs' own time, in ticks.
fn now() -> u32 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let nanos = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
    (nanos >> TICK) as u32
}

fn pinned(pins: &Pins, name: &'static str) -> Result<MapData, EbpfError> {
    MapData::from_pin(pins.maps().join(name)).map_err(|source| map_error(name, source))
}

fn opened<M: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<M, EbpfError> {
    let map = Map::from_map_data(pinned(pins, name)?).and_then(M::try_from);
    map.map_err(|source| map_error(name, source))
}

fn mapped<T: Pod>(pins: &Pins, name: &'static str, len: u32) -> Result<Mapped<T>, EbpfError> {
    let map = pinned(pins, name)?;
    Mapped::new(map.fd(), len).map_err(|source| EbpfError::Share { map: name, source })
}
