//! **Effect.** Brings programs and maps into the kernel, or finds them there.

use std::{fs, io};

use aya::maps::{MapData, RingBuf};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use mesh_ebpf::abi::{Clock, Config, Timeouts};
use tracing::warn;

use super::clock::FRAME;
use super::maps::{Former, Limits, Maps, take};
use super::pinned::Pinned;
use super::pins::Pins;
use super::reflector::Reflector;
use super::signs::Signs;
use super::{CLOCK, EbpfError, OBJECT, built_in, clock, sock};
use crate::config::KernelFeature;
use crate::dataplane::Features;

/// All nodes choose backends by it.
const MESH_SEED: u64 = 0x6d65_7368_6d65_7368;
/// The program that says whether `BPF_F_IPV6` is known.
const CSUM_V6: &str = "mesh_csum_v6";

/// The programs, by where they belong.
pub(super) mod program {
    pub(in super::super) const FROM_TASK: &str = "mesh_from_task";
    pub(in super::super) const FROM_NET: &str = "mesh_from_net";
    pub(in super::super) const FROM_HOST: &str = "mesh_from_host";
    pub(in super::super) const FROM_MESH: &str = "mesh_from_mesh";
    /// All of them.
    pub(in super::super) const ALL: [&str; 4] = [FROM_TASK, FROM_NET, FROM_HOST, FROM_MESH];
}

/// What was loaded.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    /// Why the programs at sockets are not, if they are not.
    pub(super) sockets: Result<(), EbpfError>,
    pub(super) records: RingBuf<MapData>,
    pub(super) reflector: Reflector,
    pub(super) signs: Signs,
    /// Whose flows are still to be carried over.
    pub(super) former: Option<Former>,
}

/// Loads the programs, over the maps that another agent left if they fit; those at sockets if they are wanted.
pub(super) fn load(
    pins: &Pins,
    limits: &Limits,
    sockets: bool,
    features: &mut Features,
) -> Result<Loaded, EbpfError> {
    if !built_in() {
        return Err(EbpfError::NotBuiltIn);
    }
    let former = pins.set_aside(pins.maps().fit(limits.entries()))?;
    let mut loader = EbpfLoader::new();
    // Without any log the kernel refuses the BTF; statistics are one line.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, entries) in limits.entries() {
        loader.map_max_entries(name, entries).map_pin_path(name, pins.maps().path(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(|source| EbpfError::Load(Box::new(source)))?;
    for name in program::ALL.into_iter().chain([CLOCK, CSUM_V6]) {
        let program = ebpf.program_mut(name).ok_or(EbpfError::Incomplete { kind: "program", name })?;
        let failed = |source| EbpfError::Program { name, source: Box::new(source) };
        let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
        program.load().map_err(failed)?;
    }
    let sockets = if sockets { sock::load(&mut ebpf) } else { Ok(()) };
    let mut maps = Maps::open(&pins.maps())?;
    let records = take(&mut ebpf, mesh_ebpf::abi::map::RECORDS)?;
    let reflector = Reflector::open(&mut ebpf)?;
    let signs = Signs::open(&mut ebpf)?;
    let former = former.and_then(|former| carry_over(former, &pins.maps(), &mut maps));
    let clock = clock(find(&ebpf, CLOCK)?)?;
    let asked = find(&ebpf, CSUM_V6)?;
    let csum_v6 = features.attempt(KernelFeature::CsumV6, || knows_csum_v6(asked));
    let config = configure(maps.config.get(), limits, clock, csum_v6)?;
    maps.config.change(|now| *now = config);
    Ok(Loaded { ebpf, maps, sockets, records, reflector, signs, former })
}

fn find<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a SchedClassifier, EbpfError> {
    let program = ebpf.program(name).ok_or(EbpfError::Incomplete { kind: "program", name })?;
    program.try_into().map_err(|source| EbpfError::Program { name, source: Box::new(source) })
}

/// Whether the flag is one that the kernel knows: from Linux 6.16 on, and it was given to older ones, too.
fn knows_csum_v6(program: &SchedClassifier) -> Result<(), String> {
    let frame = [0; FRAME];
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
    let answer = program.test_run(options).map_err(|error| error.to_string())?;
    if answer.return_value == 0 { Ok(()) } else { Err("bpf_l4_csum_replace has no BPF_F_IPV6".to_owned()) }
}

/// What flows refer to; the flows themselves follow when the programs do. Without it they are balanced anew.
fn carry_over(former: Pinned, into: &Pinned, maps: &mut Maps) -> Option<Former> {
    let opened = Former::open(former.clone(), into);
    let carried = opened.and_then(|former| former.carry_numbers(maps).map(|()| former));
    match carried {
        Ok(former) => return Some(former),
        Err(error) => warn!(error = error.in_full(), "flows that run are balanced anew"),
    }
    let _ = fs::remove_dir_all(former.dir());
    None
}

/// Seeds stay, for as long as flows do that were placed by them.
fn configure(old: Config, limits: &Limits, clock: Clock, csum_v6: bool) -> Result<Config, EbpfError> {
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
        clock,
        tcp_mask: limits.tcp_buckets - 1,
        udp_mask: limits.udp_buckets - 1,
        timeouts: Timeouts::DEFAULT,
        csum_v6: if csum_v6 { Config::CSUM_V6 } else { 0 },
        // Whoever watched has gone with the agent that they asked.
        watched: 0,
        moving: 0,
        ..old
    })
}
