//! Where flows go.

use super::{Addr16, Mac};

/// Whether a backend gets flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BackendState {
    /// The id is not in use: flows that name it have lost their backend.
    Gone = 0,
    /// Known flows stay, new ones go elsewhere.
    Draining = 1,
    /// In the balance.
    Active = 2,
    /// As [`Self::Draining`], and its node does not answer: datagrams go elsewhere.
    Silent = 3,
}

/// A task's address in one network. Value of `BACKENDS`, whose index is the backend id. One cache line, for the map
/// begins on a page.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Backend {
    /// The task's address.
    pub addr: Addr16,
    /// Grows each time the id is given to another task: flows of the former one know that it is gone.
    pub generation: u32,
    /// The network.
    pub vni: u32,
    /// The host's end of the task's veth, if the task is on this node; else 0.
    pub device: u32,
    /// The number of the task's node; 0: this one.
    pub peer: u32,
    /// The MAC of the task's own end.
    pub mac: Mac,
    /// A [`BackendState`].
    pub state: u8,
    /// Zero.
    pub pad: u8,
    /// Its share of the flows in relation to the others', where flows are counted.
    pub weight: u32,
    /// Zero.
    pub rest: [u32; 5],
}

impl Backend {
    /// Takes new flows.
    #[inline(always)]
    pub const fn is_active(&self) -> bool {
        self.state == BackendState::Active as u8
    }

    /// Its node does not answer.
    #[inline(always)]
    pub const fn is_silent(&self) -> bool {
        self.state == BackendState::Silent as u8
    }

    /// Still serves a flow that began when the id had `generation`.
    #[inline(always)]
    pub const fn serves(&self, generation: u32) -> bool {
        self.state != BackendState::Gone as u8 && self.generation == generation
    }
}

/// Another node. Value of `PEERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Peer {
    /// Its underlay address: the other end of the tunnel. [`Addr16::ANY_V6`]: there is no such node.
    pub addr: Addr16,
    /// The MAC of its tunnel device.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
}

/// Counters of a backend. Per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// New flows.
    pub flows: u64,
    /// Packets towards the backend.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
}

const _: () = {
    assert!(size_of::<Backend>() == 64 && align_of::<Backend>() == 64);
    assert!(size_of::<Peer>() == 24);
    assert!(size_of::<Stats>() == 24);
};
