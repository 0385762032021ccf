//! What can go wrong between the agent and its programs.

use std::{io, path::PathBuf};

use aya::{EbpfError as AyaError, maps::MapError, pin::PinError, programs::ProgramError};

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

    #[error("cannot attach the program {name} to the device {device}")]
    Attach {
        name: &'static str,
        device: String,
        #[source]
        source: Box<ProgramError>,
    },

    #[error("cannot attach the program {name} to the sockets of the node")]
    AttachToSockets {
        name: &'static str,
        #[source]
        source: Box<ProgramError>,
    },

    #[error("cannot use the control group {} (node.cgroup)", path.display())]
    Cgroup {
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("cannot list the sockets of a network namespace")]
    Sockets {
        #[source]
        source: io::Error,
    },

    #[error("cannot tell network namespaces apart; the kernel needs to be 5.14 or newer")]
    Netns {
        #[source]
        source: io::Error,
    },

    #[error("cannot keep the link of device {device} at {}", path.display())]
    Pin {
        device: String,
        path: PathBuf,
        #[source]
        source: Box<PinError>,
    },

    #[error("cannot write or read the map {map}")]
    Map {
        map: &'static str,
        #[source]
        source: Box<MapError>,
    },

    #[error("cannot learn the time of programs: the kernel does not run one when it is asked to")]
    Clock(#[source] Box<ProgramError>),

    #[error("cannot find out how many processors there are ({what})")]
    Cpus {
        what: &'static str,
        #[source]
        source: io::Error,
    },

    #[error("cannot share the memory of the map {map}; the kernel needs to be 5.5 or newer")]
    Share {
        map: &'static str,
        #[source]
        source: io::Error,
    },

    #[error("cannot {what} {}: the data plane keeps its maps there, in a BPF file system", path.display())]
    Pins {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl EbpfError {
    /// It and its causes in one line.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
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
