//! That the kernel's verifier is content with each program, and does not have to look at it for too long.

use aya::programs::{Program, ProgramInfo};
use aya::{EbpfLoader, VerifierLogLevel};
use mesh_agent::dataplane::ebpf::OBJECT;

/// How many instructions the verifier looks at, as recorded; it gives up at a million. What answers probes is part of
/// `mesh_from_net`.
const RECORDED: [(&str, u32); 16] = [
    ("mesh_from_net", 144_700),
    ("mesh_from_task", 150_700),
    ("mesh_from_host", 168_800),
    ("mesh_from_mesh", 145_200),
    ("mesh_connect4", 1500),
    ("mesh_connect6", 1600),
    ("mesh_sendmsg4", 3600),
    ("mesh_sendmsg6", 3500),
    ("mesh_recvmsg4", 50),
    ("mesh_recvmsg6", 80),
    ("mesh_getpeer4", 50),
    ("mesh_getpeer6", 80),
    ("mesh_release", 75),
    ("mesh_clock", 11),
    ("mesh_csum_v6", 10),
    ("empty", 10),
];

/// An older kernel's verifier may look at more, a changed program too: but not at much more without notice.
#[test]
fn the_verifier_looks_at_no_more_than_recorded() {
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(OBJECT)
        .expect("the object loads: was it built, and is this root?");
    let mut all: Vec<_> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    all.retain(|name| !RECORDED.iter().any(|(recorded, _)| recorded == name));
    assert_eq!(all, ["empty_xdp"], "what is not recorded");
    for (name, recorded) in RECORDED {
        let program = ebpf.program_mut(name).unwrap_or_else(|| panic!("the object has no {name}"));
        let (loaded, info) = match program {
            Program::SchedClassifier(program) => (program.load(), program.info()),
            Program::CgroupSockAddr(program) => (program.load(), program.info()),
            Program::CgroupSock(program) => (program.load(), program.info()),
            other => panic!("{name} is a program of {:?}", other.prog_type()),
        };
        loaded.unwrap_or_else(|error| panic!("the kernel refuses {name}: {error}"));
        let info: ProgramInfo = info.expect("what the kernel knows of it");
        let count = info.verified_instruction_count().expect("Linux 5.16");
        println!("{name}: {count}");
        assert!(count <= recorded + recorded / 5, "{name}: {count} instructions; {recorded} are recorded");
    }
}
