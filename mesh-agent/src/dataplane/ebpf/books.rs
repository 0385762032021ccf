//! **Decision.** What is to be written into the maps, step by step, and which number stands for what. Pure.
//!
//! The order of the steps is the invariant. What an entry points to is written before the entry and taken away
//! after it, so that a program that runs in between always finds live backends. Numbers are kept for as long as
//! what they stand for lives, and are given to another as late as possible.

mod backends;
mod filters;
mod frontends;
mod node;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::{SharedMap, Vni};
use mesh_core::plan::{Balance, Site};
use mesh_ebpf::abi::{
    Addr16, Backend, Endpoint, Frontend, FrontendKey, MacKey, NetPort, Network, Peer, SourceKey,
};

pub(super) use self::backends::Backends;
pub(super) use self::frontends::Frontends;
pub(super) use self::tables::Slots;

/// What the kernel alone knows: indexes of devices, and the node's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// By name.
    pub(super) devices: BTreeMap<String, u32>,
    /// Those that belong to another, as a bridge's ports do.
    pub(super) ports: BTreeSet<String>,
    /// All of the node's.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// One write. `None` removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Peer(u32, Peer),
    PeerId(Addr16, Option<u32>),
    Network(u32, Option<Network>),
    Endpoint(u32, Option<Endpoint>),
    Mac(MacKey, Option<Endpoint>),
    Local(Addr16, bool),
    Backend(u32, Backend),
    Slots(u32, Slots),
    Source(u32, SourceKey, bool),
    Frontend(FrontendKey, Option<Frontend>),
    PortWord(u32, u64),
    VipWord(u32, u64),
}

/// Why something cannot be written, by what it is about.
pub(super) type Problems = BTreeMap<String, String>;

/// How much the maps hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Backend ids, 0 included.
    pub(super) backends: u32,
    /// Logarithm of the number of slots.
    pub(super) slots: u32,
    /// Frontends.
    pub(super) frontends: u32,
    /// Numbers of nodes, 0 included.
    pub(super) peers: u32,
}

/// What the maps hold, and what each number in them stands for.
pub(super) struct Books {
    backends: Backends,
    frontends: Frontends,
    node: node::NodeTables,
    sites: Sites,
}

/// What is found in maps that another agent left.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// All ids that are or were in use.
    pub(super) backends: Vec<(u32, Backend)>,
    /// Under which address which number is known, and what that stands for.
    pub(super) peers: Vec<(Addr16, u32, Peer)>,
    pub(super) frontends: Vec<(FrontendKey, Frontend)>,
    pub(super) sources: Vec<(u32, SourceKey)>,
    pub(super) networks: Vec<(u32, Network)>,
    pub(super) endpoints: Vec<(u32, Endpoint)>,
    pub(super) macs: Vec<(MacKey, Endpoint)>,
    pub(super) locals: Vec<Addr16>,
    /// The words of the filters, of ports and of VIPs, that have bits.
    pub(super) ports: Vec<(u32, u64)>,
    pub(super) vips: Vec<(u32, u64)>,
    /// Not of the maps alone, and asked for only where [`Self::lets_more_by`].
    pub(super) running: Running,
}

/// Where connections lead that their tasks still have, as the clients know it.
pub(super) type Running = BTreeSet<(Addr16, NetPort)>;

impl Found {
    /// Whether filters let more by than frontends need: then there may be connections whose frontend has gone.
    pub(super) fn lets_more_by(&self) -> bool {
        filters::lets_more_by(self)
    }
}

impl Books {
    /// Of maps that hold what was found; fresh ones hold nothing.
    pub(super) fn open(sizes: Sizes, found: Found) -> Self {
        Self {
            backends: Backends::open(&sizes, &found),
            frontends: Frontends::open(&sizes, &found),
            node: node::NodeTables::open(&sizes, found),
            sites: Sites::default(),
        }
    }

    /// What turns the maps into what is wanted.
    pub(super) fn steps(&mut self, want: &Balance, facts: &Facts, problems: &mut Problems) -> Vec<Step> {
        let mut steps = Vec::new();
        self.node.put(want, facts, &mut steps, problems);
        self.put_backends(want, facts, &mut steps, problems);
        self.frontends.put(&want.frontends, &mut self.backends, &mut steps, problems);
        self.backends.settle(&mut steps);
        self.node.remove(&mut steps);
        steps
    }

    /// Whether frontends have gone since it was said which connections go on. Until then the filters let all by.
    pub(super) fn is_unsettled(&self) -> bool {
        self.frontends.is_unsettled()
    }

    /// What lets those connections by that go on, and no others whose frontend has gone.
    pub(super) fn settle(&mut self, running: &Running) -> Vec<Step> {
        self.frontends.settle(running)
    }

    /// Where connections lead that go on though their frontend has gone.
    pub(super) fn former(&self) -> &Running {
        self.frontends.former()
    }

    /// Tasks that changed; those of this node where a device did, and all where a node did.
    fn put_backends(
        &mut self,
        want: &Balance,
        facts: &Facts,
        steps: &mut Vec<Step>,
        problems: &mut Problems,
    ) {
        let first = self.sites.is_empty();
        let (mut put, mut gone) = (BTreeMap::new(), Vec::new());
        for (key, _, site) in self.sites.changes(&want.sites) {
            match site {
                Some(site) => _ = put.insert(*key, Arc::clone(site)),
                None => gone.push(*key),
            }
        }
        if self.node.peers_changed() {
            put.extend(want.sites.iter().map(|(key, site)| (*key, Arc::clone(site))));
        } else if self.node.devices_changed() {
            put.extend(here(want));
        }
        self.backends.put(&put, facts, &self.node, steps, problems);
        if first {
            self.backends.leave_all_but(&want.sites);
        } else {
            self.backends.leave(gone.iter());
        }
        self.sites.clone_from(&want.sites);
        // What there was no room for is asked for again.
        for key in put.keys().filter(|key| self.backends.id(key).is_none()) {
            self.sites.remove(key);
        }
    }
}

/// Where this node's own tasks are.
fn here(want: &Balance) -> impl Iterator<Item = ((Vni, IpAddr), Arc<Site>)> {
    let keys = want.ports.values().flat_map(|gate| gate.addresses.addresses().map(|at| (gate.vni, at)));
    keys.filter_map(|key| Some((key, Arc::clone(want.sites.get(&key)?))))
}

/// Where running tasks are, by network and address.
type Sites = SharedMap<(Vni, IpAddr), Arc<Site>>;

#[cfg(test)]
mod tests;
