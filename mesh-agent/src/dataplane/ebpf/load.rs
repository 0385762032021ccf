//! **Effect.** Brings programs and maps into the kernel, or finds them there.

use std::io;

use aya::maps::{MapData, MapInfo, RingBuf};
use aya::programs::SchedClassifier;
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use mesh_ebpf::abi::{Config, Timeouts};

use super::maps::{Limits, Maps, take};
use super::pins::Pins;
use super::{EbpfError, OBJECT, built_in, sock};

/// All nodes choose backends by it.
const MESH_SEED: u64 = 0x6d65_7368_6d65_7368;
/// `BPF_F_IPV6` of linux/bpf.h: known since Linux 6.16.
const CSUM_V6: u32 = 0x80;

/// The programs, by where they belong.
pub(super) mod program {
    pub(in super::super) const FROM_TASK: &str = "from_task";
    pub(in super::super) const FROM_NET: &str = "from_net";
    pub(in super::super) const FROM_HOST: &str = "from_host";
    pub(in super::super) const FROM_MESH4: &str = "from_mesh4";
    pub(in super::super) const FROM_MESH6: &str = "from_mesh6";
    /// All of them.
    pub(in super::super) const ALL: [&str; 5] = [FROM_TASK, FROM_NET, FROM_HOST, FROM_MESH4, FROM_MESH6];
}

/// What was loaded.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    /// Why the programs at sockets are not, if they are not.
    pub(super) sockets: Result<(), EbpfError>,
    pub(super) records: RingBuf<MapData>,
}

/// Loads the programs, over the maps that another agent left if they fit; those at sockets if they are wanted.
pub(super) fn load(pins: &Pins, limits: &Limits, sockets: bool) -> Result<Loaded, EbpfError> {
    if !built_in() {
        return Err(EbpfError::NotBuiltIn);
    }
    if !fits(pins, limits) {
        tracing::info!("new maps for the data plane: flows that run are balanced anew");
        pins.forget_maps()?;
    }
    let mut loader = EbpfLoader::new();
    // Without any log the kernel refuses the BTF; statistics are one line.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let dir = pins.maps();
    for (name, entries) in limits.entries() {
        loader.map_max_entries(name, entries);
    }
    for name in limits.entries().map(|(name, _)| name).into_iter().chain([mesh_ebpf::abi::map::EVENTS]) {
        loader.map_pin_path(name, dir.join(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(|source| EbpfError::Load(Box::new(source)))?;
    for name in program::ALL {
        let program = ebpf.program_mut(name).ok_or(EbpfError::Incomplete { kind: "program", name })?;
        let failed = |source| EbpfError::Program { name, source: Box::new(source) };
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
    }
    // Before the maps are taken: a program is loaded with the descriptors of its maps.
    let sockets = if sockets { sock::load(&mut ebpf) } else { Ok(()) };
    let maps = Maps::take(&mut ebpf, limits)?;
    let records = take(&mut ebpf, mesh_ebpf::abi::map::RECORDS)?;
    let config = configure(maps.config.get(), limits)?;
    maps.config.change(|now| *now = config);
    Ok(Loaded { ebpf, maps, sockets, records })
}

/// Whether all maps that are pinned have the size that is wanted. Types and layouts are the version's, which is
/// part of the path.
fn fits(pins: &Pins, limits: &Limits) -> bool {
    let dir = pins.maps();
    limits.entries().into_iter().all(|(name, entries)| {
        let path = dir.join(name);
        !path.exists() || MapInfo::from_pin(path).is_ok_and(|info| info.max_entries() == entries)
    })
}

/// Seeds stay, for as long as flows do that were placed by them.
fn configure(old: Config, limits: &Limits) -> Result<Config, EbpfError> {
    let fresh = old.tcp_mask == 0;
    let random = || {
        getrandom::u64().map_err(|error| EbpfError::Share {
            map: mesh_ebpf::abi::map::CONFIG,
            source: io::Error::other(error.to_string()),
        })
    };
    Ok(Config {
        table_seed: if fresh { random()? } else { old.table_seed },
        node_seed: if fresh { random()? } else { old.node_seed },
        mesh_seed: MESH_SEED,
        tcp_mask: limits.tcp_buckets - 1,
        udp_mask: limits.udp_buckets - 1,
        timeouts: Timeouts::DEFAULT,
        csum_v6: if KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 16, 0)) {
            CSUM_V6
        } else {
            0
        },
        // Whoever watched has gone with the agent that they asked.
        watched: 0,
        ..old
    })
}
