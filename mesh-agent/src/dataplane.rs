//! **Effect.** The data planes: what makes the kernel balance, isolate and translate as planned.
//!
//! One contract ([`mesh_core::plan::Balance`]), several implementations; which one a node runs is its
//! configuration's choice.

pub mod conntrack;
pub mod ebpf;
pub mod nft;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use mesh_core::plan::{Balance, Problem};
use tracing::{info, warn};

use self::ebpf::{EbpfError, EbpfPlane, Reader, Reflector, Signs, View};
use self::nft::NftPlane;
use crate::config::{Dataplane as Config, DataplaneMode, KernelFeature};
use crate::plane::{Applied, Depth, Plane};

/// The one that a node runs.
pub enum Dataplane {
    /// eBPF.
    Ebpf(Box<EbpfPlane>),
    /// nftables.
    Nft(NftPlane),
}

impl Dataplane {
    /// The one that the configuration asks for, for the processes of a control group; of the other nothing is left.
    pub fn open(config: &Config, cgroup: &Path) -> Result<Self, EbpfError> {
        let tcx = !config.without.contains(&KernelFeature::Tcx);
        let sockets = (!config.without.contains(&KernelFeature::SockLb)).then_some(cgroup);
        let nft = |pins: &Path| {
            // An agent that balanced by programs may have left some.
            for (object, error) in ebpf::remove_all(pins).errors {
                warn!(object, error, "cannot remove what the other data plane left");
            }
            Self::Nft(NftPlane::new())
        };
        let open = || EbpfPlane::open(&config.pins, sockets, tcx, config.flows);
        let plane = match config.mode {
            DataplaneMode::Nft => nft(&config.pins),
            DataplaneMode::Ebpf => Self::Ebpf(Box::new(open()?)),
            DataplaneMode::Auto => match open() {
                Ok(plane) => Self::Ebpf(Box::new(plane)),
                Err(error) => {
                    warn!(error = error.in_full(), "no eBPF here: nftables balances instead");
                    nft(&config.pins)
                }
            },
        };
        info!(dataplane = plane.name(), "data plane");
        Ok(plane)
    }

    /// `ebpf` or `nft`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ebpf(_) => EbpfPlane::NAME,
            Self::Nft(_) => NftPlane::NAME,
        }
    }

    /// What there is to see in the kernel, where that can be looked at.
    pub fn view(&self) -> Option<Arc<View>> {
        match self {
            Self::Ebpf(plane) => Some(plane.view()),
            Self::Nft(_) => None,
        }
    }

    /// Who reads what the kernel tells of flows; once.
    pub fn reader(&mut self) -> Option<Reader> {
        match self {
            Self::Ebpf(plane) => plane.reader(),
            Self::Nft(_) => None,
        }
    }

    /// Where to say how the node fares, if its kernel answers probes; once.
    pub fn reflector(&mut self) -> Option<Reflector> {
        match self {
            Self::Ebpf(plane) => plane.reflector(),
            Self::Nft(_) => None,
        }
    }

    /// What tasks make of connections, if that is counted; once.
    pub fn signs(&mut self) -> Option<Signs> {
        match self {
            Self::Ebpf(plane) => plane.signs(),
            Self::Nft(_) => None,
        }
    }

    /// What is wrong in the kernel though all is as planned.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Ebpf(plane) => plane.problems(),
            Self::Nft(_) => Vec::new(),
        }
    }

    /// What it cannot do, in words for people.
    pub fn limits(&self) -> Vec<String> {
        match self {
            Self::Ebpf(_) => EbpfPlane::limits(),
            Self::Nft(_) => NftPlane::limits(),
        }
    }
}

impl Plane for Dataplane {
    type Want = Balance;
    const NAME: &'static str = "dataplane";

    async fn reconcile(&mut self, want: &Balance, depth: Depth) -> Applied {
        match self {
            Self::Ebpf(plane) => plane.reconcile(want, depth).await,
            Self::Nft(plane) => plane.reconcile(want, depth).await,
        }
    }

    async fn remove_all(&mut self) -> Applied {
        match self {
            Self::Ebpf(plane) => plane.remove_all().await,
            Self::Nft(plane) => plane.remove_all().await,
        }
    }
}

/// The node's own addresses, of all devices.
fn addresses() -> Result<BTreeSet<IpAddr>, String> {
    match nix::ifaddrs::getifaddrs() {
        Ok(all) => Ok(all.filter_map(|one| address_of(&one)).collect()),
        Err(error) => Err(format!("cannot list the node's addresses: {error}")),
    }
}

fn address_of(one: &nix::ifaddrs::InterfaceAddress) -> Option<IpAddr> {
    let address = one.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}
