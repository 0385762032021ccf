//! **Effect.** The data planes: what makes the kernel balance, isolate and translate as planned.
//!
//! One contract ([`mesh_core::plan::Balance`]), several implementations; which one a node runs is its
//! configuration's choice.

pub mod conntrack;
pub mod ebpf;
mod features;
pub mod nft;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use mesh_core::plan::{Balance, Problem};
use tracing::{info, warn};

use self::ebpf::{EbpfError, EbpfPlane, Reader, Reflector, Signs, View};
pub use self::features::{Feature, Features, Found};
use self::nft::NftPlane;
use crate::config::{Dataplane as Config, DataplaneMode};
use crate::overlay::Guard;
use crate::plane::{Applied, Depth, Plane};

/// The one that a node runs.
pub enum Dataplane {
    /// eBPF.
    Ebpf(Box<EbpfPlane>),
    /// nftables, and why not eBPF.
    Nft(Box<NftPlane>, Found),
}

impl Dataplane {
    /// The one that the configuration asks for, for the processes of a control group; of the other nothing is left.
    pub fn open(config: &Config, cgroup: &Path) -> Result<Self, EbpfError> {
        let nft = |pins: &Path, why: Found| {
            // An agent that balanced by programs may have left some.
            for (object, error) in ebpf::remove_all(pins).errors {
                warn!(object, error, "cannot remove what the other data plane left");
            }
            Self::Nft(Box::new(NftPlane::new()), why)
        };
        let open = || EbpfPlane::open(&config.pins, cgroup, &config.without, config.flows);
        let plane = match config.mode {
            DataplaneMode::Nft => nft(&config.pins, Found::Off),
            DataplaneMode::Ebpf => Self::Ebpf(Box::new(open()?)),
            DataplaneMode::Auto => match open() {
                Ok(plane) => Self::Ebpf(Box::new(plane)),
                Err(error) => {
                    warn!(error = error.in_full(), "no eBPF here: nftables balances instead");
                    nft(&config.pins, Found::Missing(error.in_full()))
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
            Self::Nft(..) => NftPlane::NAME,
        }
    }

    /// What there is to see in the kernel, where that can be looked at.
    pub fn view(&self) -> Option<Arc<View>> {
        match self {
            Self::Ebpf(plane) => Some(plane.view()),
            Self::Nft(..) => None,
        }
    }

    /// What tasks' devices need before they go up.
    pub fn guard(&self) -> Option<Guard> {
        match self {
            Self::Ebpf(plane) => Some(Box::new(plane.guard())),
            Self::Nft(..) => None,
        }
    }

    /// Who reads what the kernel tells of flows; once.
    pub fn reader(&mut self) -> Option<Reader> {
        match self {
            Self::Ebpf(plane) => plane.reader(),
            Self::Nft(..) => None,
        }
    }

    /// Where to say how the node fares, if its kernel answers probes; once.
    pub fn reflector(&mut self) -> Option<Reflector> {
        match self {
            Self::Ebpf(plane) => plane.reflector(),
            Self::Nft(..) => None,
        }
    }

    /// What tasks make of connections, if that is counted; once.
    pub fn signs(&mut self) -> Option<Signs> {
        match self {
            Self::Ebpf(plane) => plane.signs(),
            Self::Nft(..) => None,
        }
    }

    /// What is wrong in the kernel though all is as planned.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Ebpf(plane) => plane.problems(),
            Self::Nft(..) => Vec::new(),
        }
    }

    /// Which features of the kernel it uses.
    pub fn features(&self) -> Vec<Feature> {
        match self {
            Self::Ebpf(plane) => {
                std::iter::once(Feature::ebpf(Found::Used)).chain(plane.features()).collect()
            }
            Self::Nft(_, why) => vec![Feature::ebpf(why.clone())],
        }
    }

    /// What it cannot do, in words for people.
    pub fn limits(&self) -> Vec<String> {
        match self {
            Self::Ebpf(_) => EbpfPlane::limits(),
            Self::Nft(..) => NftPlane::limits(),
        }
    }
}

impl Plane for Dataplane {
    type Want = Balance;
    const NAME: &'static str = "dataplane";

    async fn reconcile(&mut self, want: &Balance, depth: Depth) -> Applied {
        match self {
            Self::Ebpf(plane) => plane.reconcile(want, depth).await,
            Self::Nft(plane, _) => plane.reconcile(want, depth).await,
        }
    }

    async fn remove_all(&mut self) -> Applied {
        match self {
            Self::Ebpf(plane) => plane.remove_all().await,
            Self::Nft(plane, _) => plane.remove_all().await,
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
