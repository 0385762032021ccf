//! Tasks of this node and their networks.

use super::{Addr16, Mac};

/// A local task's place in one network. Value of `ENDPOINTS` and `MACS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its IPv4 address, mapped.
    pub v4: Addr16,
    /// Its IPv6 address, or [`Addr16::ANY_V6`].
    pub v6: Addr16,
    /// The network.
    pub vni: u32,
    /// The host's end of its veth.
    pub device: u32,
    /// The MAC of its own end.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
}

impl Endpoint {
    /// Whether an address is the task's own.
    #[inline(always)]
    pub fn owns(&self, addr: &Addr16) -> bool {
        self.v4 == *addr || (self.v6 == *addr && self.v6 != Addr16::ANY_V6)
    }

    /// The task's address of the family of another.
    #[inline(always)]
    pub const fn beside(&self, other: &Addr16) -> Addr16 {
        if other.is_v4() { self.v4 } else { self.v6 }
    }
}

/// Key of `MACS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacKey {
    /// The MAC of the task's own end.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
}

impl From<Mac> for MacKey {
    #[inline(always)]
    fn from(mac: Mac) -> Self {
        Self { mac, pad: [0; 2] }
    }
}

/// What is known of a network. Value of `NETWORKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The node's own IPv4 address in it: what a task sees that reaches itself. [`Addr16::ANY_V6`]: none.
    pub v4: Addr16,
    /// The node's own IPv6 address in it.
    pub v6: Addr16,
}

impl Network {
    /// The node's own address of the family of another, if there is one.
    #[inline(always)]
    pub fn beside(&self, other: &Addr16) -> Option<Addr16> {
        let own = if other.is_v4() { self.v4 } else { self.v6 };
        (own != Addr16::ANY_V6).then_some(own)
    }
}

const _: () = {
    assert!(size_of::<Endpoint>() == 48);
    assert!(size_of::<MacKey>() == 8);
    assert!(size_of::<Network>() == 32);
};
