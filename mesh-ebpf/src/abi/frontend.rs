//! What clients send to.

use super::{Addr16, NetPort, TCP};

/// Which kind of frontend a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// A service's virtual address, every port and protocol of it.
    Vip = 0,
    /// A port of the node's own, on one of its addresses or on all.
    Published = 1,
}

/// Key of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The address; [`Addr16::ANY_V4`] or [`Addr16::ANY_V6`] for all of the node's.
    pub addr: Addr16,
    /// The port; [`NetPort::ANY`] for a VIP.
    pub port: NetPort,
    /// The protocol; 0 for a VIP.
    pub proto: u8,
    /// A [`Scope`].
    pub scope: u8,
}

impl FrontendKey {
    /// A virtual address.
    #[inline(always)]
    pub const fn vip(addr: Addr16) -> Self {
        Self { addr, port: NetPort::ANY, proto: 0, scope: Scope::Vip as u8 }
    }

    /// A port that is published on all of the node's addresses, for clients of the family of one of them.
    #[inline(always)]
    pub const fn everywhere(like: &Addr16, port: NetPort, proto: u8) -> Self {
        Self::published(if like.is_v4() { Addr16::ANY_V4 } else { Addr16::ANY_V6 }, port, proto)
    }

    /// A published port.
    #[inline(always)]
    pub const fn published(addr: Addr16, port: NetPort, proto: u8) -> Self {
        Self { addr, port, proto, scope: Scope::Published as u8 }
    }
}

/// Where a port is published: two bits of `PORTS`, so that nobody looks for what is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Published(pub u64);

impl Published {
    /// On all of the node's addresses.
    pub const EVERYWHERE: Self = Self(1);
    /// On some addresses.
    pub const SOMEWHERE: Self = Self(2);
    const BITS: u64 = 3;

    /// Whether it is at all.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.0 != 0
    }

    /// Whether it is so.
    #[inline(always)]
    pub const fn is(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The word of `PORTS` that a port is in, and how far from its lowest bit.
    #[inline(always)]
    pub const fn place(proto: u8, port: NetPort) -> (u32, u32) {
        let number = port.number() as u32 | if proto == TCP { 0 } else { 1 << 16 };
        (number / 32, number % 32 * 2)
    }

    /// What a word says of the port that is so far from its lowest bit.
    #[inline(always)]
    pub const fn of(word: u64, shift: u32) -> Self {
        Self(word >> shift & Self::BITS)
    }
}

/// Value of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Frontend {
    /// Where its slots begin in `SLOTS`.
    pub slots: u32,
    /// Number of slots less one; the number is a power of two. Zero backends: nothing here counts.
    pub mask: u32,
    /// Number of backends that take new flows.
    pub backends: u32,
    /// The network of the backends; of a VIP also that of the clients.
    pub vni: u32,
    /// Its number: that of its sources and its clients' affinity.
    pub id: u32,
    /// How long a client is remembered after its last flow, in ticks of [`crate::flow::TICK`]; 0: not at all.
    pub affinity: u32,
    /// The port of the tasks; [`NetPort::ANY`]: as the client chose.
    pub target: NetPort,
    /// [`Self::HASHED`] and its like, and the [step](super::Timeouts::step) of its idle timeout from
    /// [`Self::IDLE`] on.
    pub flags: u16,
}

impl Frontend {
    /// None.
    pub const NONE: Self =
        Self { slots: 0, mask: 0, backends: 0, vni: 0, id: 0, affinity: 0, target: NetPort::ANY, flags: 0 };
    /// All nodes choose alike (Maglev); otherwise each node by a seed of its own.
    pub const HASHED: u16 = 1;
    /// Only clients in `SOURCES` are let in.
    pub const GUARDED: u16 = 2;
    /// Answers of tasks on other nodes go straight to the client ("direct server return").
    pub const DSR: u16 = 4;
    /// Tasks on other nodes see this node's address instead of the client's.
    pub const SNAT: u16 = 8;
    /// The backend with the fewest flows, of some.
    pub const LEAST: u16 = 16;
    /// Where the step of the idle timeout begins: 0, or four bits.
    pub const IDLE: u32 = 12;

    /// The step of how long its flows may be idle; 0: as the node has it.
    #[inline(always)]
    pub const fn idle(&self) -> u32 {
        (self.flags >> Self::IDLE) as u32
    }

    /// Whether one of these flags is set.
    #[inline(always)]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Key of `SOURCES`, a trie: clients that a guarded frontend lets in.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceKey {
    /// [`Frontend::id`].
    pub frontend: u32,
    /// The client.
    pub addr: Addr16,
}

impl SourceKey {
    /// Bits of the key that come before the address.
    pub const FIXED_BITS: u32 = 32;
    /// All bits of the key.
    pub const BITS: u32 = Self::FIXED_BITS + 128;
}

/// Key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// The client.
    pub client: Addr16,
    /// [`Frontend::id`].
    pub frontend: u32,
}

/// Value of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AffinityValue {
    /// Where the client's flows go.
    pub backend: u32,
    /// [`super::Backend::generation`] then.
    pub generation: u32,
    /// When it was last used, in ticks of [`crate::flow::TICK`].
    pub seen: u32,
}

const _: () = {
    assert!(size_of::<FrontendKey>() == 20 && align_of::<FrontendKey>() == 4);
    assert!(size_of::<Frontend>() == 28 && align_of::<Frontend>() == 4);
    assert!(size_of::<SourceKey>() == 20);
    assert!(size_of::<AffinityKey>() == 20);
    assert!(size_of::<AffinityValue>() == 12);
};
