//! Katran, whose XDP program gets the same packets: how its maps are filled (after its `KatranLb.cpp`).

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::{ArrayOfMaps, Map, MapData, PerCpuArray};
use aya::programs::Xdp;
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use mesh_ebpf::abi::{TCP, UDP};

use super::case::{Place, random};
use super::node::{self, FIRST_PORT, TASKS};

const PROGRAM: &str = "balancer_ingress";
/// Slots of a VIP.
const RING: u32 = 65_537;
/// In its `stats`, after those of the VIPs: packets and misses, and packets of processors without a table.
const LRU: u32 = 0;
const FALLBACK: u32 = 3;
const F_IPV6: u8 = 1;
const PROTOCOLS: [u8; 2] = [TCP, UDP];

/// What is measured beside ours.
#[derive(Debug, Clone)]
pub struct Other {
    /// Katran's `balancer.bpf.o`.
    pub object: PathBuf,
    /// Flows that it remembers, of all processors together: Katran's `LruSize`.
    pub flows: u32,
}

impl Other {
    /// As many as Katran remembers unless told otherwise.
    pub const FLOWS: u32 = 8_000_000;
}

/// One that balances what clients send to a node's ports.
pub(super) struct Katran {
    ebpf: Ebpf,
    /// How many VIPs it has room for. Each port and protocol is one.
    room: u32,
}

impl Katran {
    /// With maps as large as it makes them, and filled as ours; none where it has no room for all services.
    pub(super) fn load(other: &Other, place: Place) -> Result<Option<Self>> {
        let cpus = u32::try_from(nr_cpus().map_err(|(_, error)| error)?)?;
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(VerifierLogLevel::STATS);
        // It serves as the table of the one processor that is measured: it is of the same kind.
        loader.map_max_entries("fallback_cache", other.flows / cpus);
        let file = || other.object.display().to_string();
        let mut ebpf = loader.load_file(&other.object).with_context(file)?;
        let program: &mut Xdp = ebpf.program_mut(PROGRAM).context(PROGRAM).with_context(file)?.try_into()?;
        program.load().with_context(file)?;
        let room = stats(&ebpf)?.len() / 2;
        if place.services * PROTOCOLS.len() as u32 > room {
            return Ok(None);
        }
        let mut katran = Self { ebpf, room };
        katran.fill(place).with_context(file)?;
        Ok(Some(katran))
    }

    fn fill(&mut self, place: Place) -> Result<()> {
        let gateway = [2_u8, 0x4d, 198, 51, 100, 2, 0, 0];
        node::set(&mut self.ebpf, "ctl_array", [(0, gateway)])?;
        // None has number 0: that is an empty slot.
        let reals = 1..=place.services * TASKS;
        node::set(&mut self.ebpf, "reals", reals.map(|id| (id, real(node::task(id, place.v6)))))?;
        let vips = (0..place.services).flat_map(|service| PROTOCOLS.map(|proto| (service, proto)));
        let here = node::address(place.v6);
        let numbered = (0_u32..).zip(vips.clone());
        let keys = numbered.map(|(number, (service, proto))| {
            (vip(here, FIRST_PORT + service as u16, proto), [0_u32, number])
        });
        node::put(&mut self.ebpf, "vip_map", keys)?;
        let slots = vips.flat_map(|(service, _)| {
            (0..RING).map(move |slot| 1 + service * TASKS + (random(slot.into()) % u64::from(TASKS)) as u32)
        });
        node::set(&mut self.ebpf, "ch_rings", (0..).zip(slots))?;
        self.remember()
    }

    /// Gives all processors the table, of which only the one that is measured uses it.
    fn remember(&mut self) -> Result<()> {
        let Some(Map::LruHashMap(table)) = self.ebpf.take_map("fallback_cache") else {
            return Err(anyhow!("fallback_cache is no LRU hash"));
        };
        let lrus = self.ebpf.map_mut("lru_mapping").context("lru_mapping")?;
        let mut lrus: ArrayOfMaps<&mut MapData> = lrus.try_into()?;
        let cpus = u32::try_from(nr_cpus().map_err(|(_, error)| error)?)?;
        (0..cpus).try_for_each(|cpu| Ok(lrus.set(cpu, &table, 0)?))
    }

    /// Its program.
    pub(super) fn program(&self) -> Result<&Xdp> {
        Ok(self.ebpf.program(PROGRAM).context(PROGRAM)?.try_into()?)
    }

    /// Packets whose flow was not known.
    pub(super) fn missed(&self) -> Result<u64> {
        let [without, _] = self.counted(FALLBACK)?;
        ensure!(without == 0, "{without} packets met a processor without a table");
        Ok(self.counted(LRU)?[1])
    }

    fn counted(&self, what: u32) -> Result<[u64; 2]> {
        let each = stats(&self.ebpf)?.get(&(self.room + what), 0)?;
        Ok(each.iter().fold([0; 2], |sum, cpu| [sum[0] + cpu[0], sum[1] + cpu[1]]))
    }
}

fn stats(ebpf: &Ebpf) -> Result<PerCpuArray<&MapData, [u64; 2]>> {
    Ok(ebpf.map("stats").context("stats")?.try_into()?)
}

/// `struct vip_definition`.
fn vip(address: IpAddr, port: u16, proto: u8) -> [u8; 20] {
    let mut key = words(address);
    key[16..18].copy_from_slice(&port.to_be_bytes());
    key[18] = proto;
    key
}

/// `struct real_definition`.
fn real(address: IpAddr) -> [u8; 20] {
    let mut value = words(address);
    value[16] = if address.is_ipv6() { F_IPV6 } else { 0 };
    value
}

fn words(address: IpAddr) -> [u8; 20] {
    let mut words = [0; 20];
    match address {
        IpAddr::V4(address) => words[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => words[..16].copy_from_slice(&address.octets()),
    }
    words
}
