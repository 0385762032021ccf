//! What can go wrong between the agent and its programs.

use std::{io, net::SocketAddr, path::PathBuf};

use aya::{EbpfError as AyaError, maps::MapError, programs::ProgramError};

use super::Vip;

/// What failed, on what, and what to do about it. The kernel's own words are the source.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    #[error(
        "this mesh was built without eBPF: run `cargo xtask setup`, then build again; \
         the nft data plane works without it"
    )]
    NotBuiltIn,

    #[error("cannot load the eBPF programs: {}", load_hint(.0))]
    Load(#[source] Box<AyaError>),

    #[error("the eBPF object has no {kind} {name}: mesh was built wrongly; build it again from a clean tree")]
    Incomplete { kind: &'static str, name: &'static str },

    #[error("the kernel refuses the program {name}: {}", program_hint(.source))]
    Program {
        name: &'static str,
        #[source]
        source: Box<ProgramError>,
    },

    #[error("cannot open the cgroup {}: it must be a directory of a mounted cgroup v2", path.display())]
    OpenCgroup {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error(
        "cannot attach the program {name} to the cgroup {}: it must be a directory of cgroup v2, and the kernel \
         needs CONFIG_CGROUP_BPF",
        path.display()
    )]
    Attach {
        name: &'static str,
        path: PathBuf,
        #[source]
        source: Box<ProgramError>,
    },

    #[error("cannot write the map {map} for {vip}")]
    Map {
        map: &'static str,
        vip: Vip,
        #[source]
        source: Box<MapError>,
    },

    #[error("no room for {vip}: the map {map} holds {limit} entries; remove services that are not needed")]
    Full { map: &'static str, vip: Vip, limit: u32 },

    #[error("{vip} is no IPv4 address: the socket balancer knows connect4 only; IPv6 goes by packets")]
    VipNotIpv4 { vip: Vip },

    #[error("backend {backend} of {vip} is no IPv4 address, so that an IPv4 socket cannot reach it")]
    BackendNotIpv4 { vip: Vip, backend: SocketAddr },
}

/// Loading creates maps first: without privilege, they are what fails.
fn load_hint(error: &AyaError) -> &'static str {
    let denied = match error {
        AyaError::MapError(MapError::CreateError { io_error, .. }) => is_denied(io_error),
        AyaError::MapError(MapError::SyscallError(call)) => is_denied(&call.io_error),
        _ => false,
    };
    if denied { DENIED } else { "the kernel needs CONFIG_BPF_SYSCALL; `cargo xtask setup` lists what it has" }
}

fn program_hint(error: &ProgramError) -> &'static str {
    match error {
        ProgramError::LoadError { io_error, .. } if is_denied(io_error) => DENIED,
        _ => "it may be too old (5.18 is needed); the verifier's words follow",
    }
}

const DENIED: &str = "permission denied; run as root, or with CAP_BPF and CAP_NET_ADMIN";

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}
