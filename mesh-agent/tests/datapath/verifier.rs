//! That the kernel's verifier is content with each program, and does not have to look at it for too long.

use aya::programs::{ProgramInfo, SchedClassifier};
use aya::{EbpfLoader, VerifierLogLevel};
use mesh_agent::dataplane::ebpf::OBJECT;

/// How many instructions the verifier looks at, as recorded; it gives up at a million.
const RECORDED: [(&str, u32); 6] = [
    ("mesh_from_net", 136_000),
    ("mesh_from_task", 142_000),
    ("mesh_from_host", 160_000),
    ("mesh_from_mesh4", 135_000),
    ("mesh_from_mesh6", 135_000),
    ("empty", 10),
];

/// An older kernel's verifier may look at more, a changed program too: but not at much more without notice.
#[test]
fn the_verifier_looks_at_no_more_than_recorded() {
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(OBJECT)
        .expect("the object loads: was it built, and is this root?");
    for (name, recorded) in RECORDED {
        let program = ebpf.program_mut(name).unwrap_or_else(|| panic!("the object has no {name}"));
        let program: &mut SchedClassifier = program.try_into().expect("a program of tc");
        program.load().unwrap_or_else(|error| panic!("the kernel refuses {name}: {error}"));
        let info: ProgramInfo = program.info().expect("what the kernel knows of it");
        let count = info.verified_instruction_count().expect("Linux 5.16");
        println!("{name}: {count}");
        assert!(count <= recorded + recorded / 5, "{name}: {count} instructions; {recorded} are recorded");
    }
}
