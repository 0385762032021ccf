//! **Effect:** the eBPF data plane: the object that the build embedded, and its loaders.
//!
//! What the programs do is in package mesh-ebpf; this module only brings them and their maps into
//! the kernel. Every map value that is written here has its layout in `mesh_ebpf::abi`.

mod connect_lb;
mod error;
mod ids;

use std::path::PathBuf;

pub use connect_lb::{ConnectLb, Protocol, Vip};
pub use error::EbpfError;

/// The compiled programs, as an ELF object. Empty when the build had no BPF toolchain.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mesh-bpf.o"));

/// Whether the programs are in this binary.
pub const fn built_in() -> bool {
    !cfg!(mesh_ebpf_stub)
}

/// Where cgroup v2 is mounted: `/sys/fs/cgroup`, or elsewhere next to version 1.
pub fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    find_cgroup2(&mounts)
}

fn find_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (dir, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(dir))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_there_exactly_when_it_was_built() {
        assert_eq!(built_in(), !OBJECT.is_empty());
    }

    #[test]
    fn cgroup2_is_found_by_its_type_and_not_by_its_place() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_cgroup2(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_cgroup2("cgroup2 /elsewhere tmpfs rw 0 0\n"), None);
    }
}
