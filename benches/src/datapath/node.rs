//! A node: programs and maps of their own in the kernel, on no device.

use std::hash::Hash;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, Xdp};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use mesh_agent::dataplane::ebpf::{CLOCK, OBJECT, clock, map_sizes};
use mesh_core::maglev::{self, Weighted};
use mesh_ebpf::abi::{
    Addr16, Backend, BackendState, Config, Frontend, FrontendKey, NetPort, PORT_WORDS, Peer, Published,
    SLOT_LINE, SlotLine, TCP, UDP, map,
};
use mesh_ebpf::flow::Bucket;
use mesh_ebpf::verdict::Event;

use super::case::{Path, Place};

/// The first published port.
pub(super) const FIRST_PORT: u16 = 10_000;
/// Tasks of each service.
pub(super) const TASKS: u32 = 2;
const VNI: u32 = 4096;
/// Room for 100,000 flows with an entry for each direction. An agent has half of it for TCP and a quarter for UDP.
const BUCKETS: u32 = 1 << 17;

/// One that publishes services and receives what clients send to its ports.
pub(super) struct Node {
    ebpf: Ebpf,
}

/// The node's own address.
pub(super) fn address(v6: bool) -> IpAddr {
    if v6 { [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1].into() } else { [198, 51, 100, 1].into() }
}

impl Node {
    /// With maps as large as an agent's, and filled.
    pub(super) fn load(place: Place) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        // Without any log the kernel refuses the BTF.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        for (name, entries) in map_sizes().chain([map::FLOWS_TCP, map::FLOWS_UDP].map(|name| (name, BUCKETS)))
        {
            loader.map_max_entries(name, entries);
        }
        let mut node = Self { ebpf: loader.load(OBJECT).context("cannot load the programs: is this root?")? };
        for name in ["mesh_from_net", "empty", CLOCK] {
            let program: &mut SchedClassifier = node.ebpf.program_mut(name).context(name)?.try_into()?;
            program.load().with_context(|| format!("the kernel refuses {name}"))?;
        }
        let empty: &mut Xdp = node.ebpf.program_mut("empty_xdp").context("empty_xdp")?.try_into()?;
        empty.load().context("the kernel refuses empty_xdp")?;
        node.fill(place)?;
        Ok(node)
    }

    fn fill(&mut self, place: Place) -> Result<()> {
        let here: Addr16 = address(place.v6).into();
        put(&mut self.ebpf, map::LOCALS, [(here, 1_u32)])?;
        let peer = Peer {
            addr: IpAddr::from([198, 51, 100, 2]).into(),
            mac: [2, 0x4d, 198, 51, 100, 2],
            pad: [0; 2],
        };
        set(&mut self.ebpf, map::PEERS, [(1, peer)])?;
        let backend = |id: u32| Backend {
            addr: task(id, place.v6).into(),
            generation: 1,
            vni: VNI,
            device: if place.path == Path::Local { 100 + id } else { 0 },
            peer: if place.path == Path::Local { 0 } else { 1 },
            mac: [2, 0x54, 0, 0, (id >> 8) as u8, id as u8],
            state: BackendState::Active as u8,
            pad: 0,
            weight: 1,
            rest: [0; 5],
        };
        let ids = 1..=place.services * TASKS;
        set(&mut self.ebpf, map::BACKENDS, ids.map(|id| (id, backend(id))))?;
        let size = maglev::size(TASKS as usize);
        let mut slots = vec![0; size as usize];
        let mut lines: Vec<(u32, SlotLine)> = Vec::new();
        for service in 0..place.services {
            let weighted: Vec<Weighted> = (1 + service * TASKS..=(service + 1) * TASKS)
                .map(|id| Weighted { key: u64::from(id), weight: 1, value: id })
                .collect();
            maglev::fill(&weighted, &mut slots);
            let first = service * size / SLOT_LINE;
            lines.extend(
                (first..).zip(slots.chunks_exact(SLOT_LINE as usize).filter_map(|line| line.try_into().ok())),
            );
        }
        set(&mut self.ebpf, map::SLOTS, lines)?;
        let any = if place.v6 { Addr16::ANY_V6 } else { Addr16::ANY_V4 };
        let frontends = (0..place.services).flat_map(|service| {
            let value = Frontend {
                slots: service * size,
                mask: size - 1,
                backends: TASKS,
                vni: VNI,
                id: 1 + service,
                affinity: 0,
                target: NetPort::new(80),
                flags: 0,
            };
            let port = NetPort::new(FIRST_PORT + service as u16);
            [TCP, UDP].map(|proto| (FrontendKey::published(any, port, proto), value))
        });
        put(&mut self.ebpf, map::FRONTENDS, frontends)?;
        let mut words = vec![0_u64; PORT_WORDS as usize];
        for port in (0..place.services).map(|service| NetPort::new(FIRST_PORT + service as u16)) {
            for proto in [TCP, UDP] {
                let (word, shift) = Published::place(proto, port);
                words[word as usize] |= Published::EVERYWHERE.0 << shift;
            }
        }
        set(&mut self.ebpf, map::PORTS, (0..).zip(words))?;
        // Last: programs let everything pass until there is one.
        let config = Config { clock: clock(self.program(CLOCK)?)?, ..config()? };
        set(&mut self.ebpf, map::CONFIG, [(0, config)])
    }

    /// One of the programs.
    pub(super) fn program(&self, name: &str) -> Result<&SchedClassifier> {
        Ok(self.ebpf.program(name).context("a program of this name")?.try_into()?)
    }

    /// The program that does nothing at the hook of another balancer.
    pub(super) fn empty_xdp(&self) -> Result<&Xdp> {
        Ok(self.ebpf.program("empty_xdp").context("a program of this name")?.try_into()?)
    }

    /// How often something happened.
    pub(super) fn counted(&self, event: Event) -> Result<u64> {
        let map = self.ebpf.map(map::EVENTS).context("EVENTS")?;
        let events: PerCpuArray<&MapData, u64> = map.try_into()?;
        Ok(events.get(&(event as u32), 0)?.iter().sum())
    }

    /// All that is remembered of one protocol.
    pub(super) fn flows(&self, proto: u8) -> Result<Vec<Bucket>> {
        let name = if proto == TCP { map::FLOWS_TCP } else { map::FLOWS_UDP };
        let buckets: Array<&MapData, Bucket> = self.ebpf.map(name).context(name)?.try_into()?;
        let all: Result<Vec<Bucket>, _> = buckets.iter().collect();
        Ok(all?)
    }
}

/// The address of a task.
pub(super) fn task(id: u32, v6: bool) -> IpAddr {
    let [_, a, b, c] = id.to_be_bytes();
    if v6 { [0xfd00, 0, 0, 0, 0, 0, a.into(), (id & 0xffff) as u16].into() } else { [10, a, b, c].into() }
}

fn config() -> Result<Config> {
    let new = KernelVersion::current()? >= KernelVersion::new(6, 16, 0);
    Ok(Config {
        table_seed: 0x1234_5678_9abc_def0,
        node_seed: 0x0fed_cba9_8765_4321,
        mesh_seed: 77,
        tcp_mask: BUCKETS - 1,
        udp_mask: BUCKETS - 1,
        tunnel: 9,
        tunnel_mtu: 1450,
        csum_v6: if new { 0x80 } else { 0 },
        mac: [2, 0x4d, 198, 51, 100, 1],
        here: [false, true].map(|v6| address(v6).into()),
        ..Config::NEW
    })
}

/// Writes values of an array.
pub(super) fn set<V: Pod>(
    ebpf: &mut Ebpf,
    name: &str,
    values: impl IntoIterator<Item = (u32, V)>,
) -> Result<()> {
    let mut array: Array<&mut MapData, V> =
        ebpf.map_mut(name).with_context(|| name.to_owned())?.try_into()?;
    for (index, value) in values {
        array.set(index, value, 0).with_context(|| format!("{name}[{index}]"))?;
    }
    Ok(())
}

/// Writes entries of a hash.
pub(super) fn put<K: Pod + Hash, V: Pod>(
    ebpf: &mut Ebpf,
    name: &str,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    let mut hash: HashMap<&mut MapData, K, V> =
        ebpf.map_mut(name).with_context(|| name.to_owned())?.try_into()?;
    for (key, value) in entries {
        if let Err(error) = hash.insert(key, value, 0) {
            bail!("cannot write {name}: {error}");
        }
    }
    Ok(())
}
