//! What one word says of a flow.

use crate::abi::{TCP, Timeouts};
use crate::packet::{Packet, tcp};

/// What a flow's entry is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// From the client, as it comes in.
    Forward = 1,
    /// From the backend, as it comes in.
    Reply = 2,
}

/// Where the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// In a task of this node, behind a device.
    Task = 0,
    /// Beyond a device of this node.
    Uplink = 1,
    /// A process of the node itself.
    Stack = 2,
    /// Beyond another node, which is the one that it came in by.
    Peer = 3,
}

/// The client's side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where it is.
    pub place: Place,
    /// The index of its device, or the number of the other node; of a process with a loopback address the last
    /// three bytes of that.
    pub via: u32,
}

impl Client {
    /// Whether a packet from here may be of a flow that came from there. From outside, each may come another way:
    /// routers change their minds, and an address may be that of several nodes.
    #[inline(always)]
    pub const fn may_be(self, before: Self) -> bool {
        self.place as u8 == before.place as u8 && self.via == before.via
            || self.is_outside() && before.is_outside()
    }

    #[inline(always)]
    const fn is_outside(self) -> bool {
        matches!(self.place, Place::Uplink | Place::Peer)
    }
}

/// One word that says what an entry is, and whether it still counts.
///
/// From the lowest bit: 24 of `via`, 8 of role, place and marks, 24 of time, 2 of state, 5 that count the flows of
/// the way, 1 that is set while the entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head(pub u64);

impl Head {
    /// The translation is made on this node.
    pub const HERE: u64 = 1 << 28;
    /// The client is the backend itself.
    pub const SELF: u64 = 1 << 29;
    /// The client sent from a loopback address.
    pub const LOOPBACK: u64 = 1 << 30;
    const VIA: u64 = (1 << 24) - 1;
    const SEEN: u32 = 32;
    const TIME: u64 = (1 << 24) - 1;
    /// More than the beginning was heard from this side.
    pub const ESTABLISHED: u64 = 1 << 56;
    /// This side, or the other, has ended.
    pub const CLOSING: u64 = 1 << 57;
    const COUNT: u64 = 0x1f << 58;
    const NEXT: u64 = 1 << 58;
    /// Somebody is writing the entry.
    pub(super) const BUSY: u64 = 1 << 63;

    /// Of a flow that begins now. Marks are of [`Self::HERE`], [`Self::SELF`] and [`Self::LOOPBACK`].
    #[inline(always)]
    pub const fn new(role: Role, client: Client, marks: u64, now: u32) -> Self {
        let identity =
            (client.via as u64 & Self::VIA) | (role as u64) << 24 | (client.place as u64) << 26 | marks;
        Self(identity | (now as u64 & Self::TIME) << Self::SEEN)
    }

    /// Never written.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// A mark or state.
    #[inline(always)]
    pub const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    /// Whether it is of this role.
    #[inline(always)]
    pub const fn is(self, role: Role) -> bool {
        (self.0 >> 24) & 3 == role as u64
    }

    /// Where the client is.
    #[inline(always)]
    pub const fn client(self) -> Client {
        let place = match (self.0 >> 26) & 3 {
            0 => Place::Task,
            1 => Place::Uplink,
            2 => Place::Stack,
            _ => Place::Peer,
        };
        Client { place, via: (self.0 & Self::VIA) as u32 }
    }

    /// With the client elsewhere.
    #[inline(always)]
    pub const fn by(self, client: Client) -> Self {
        let place = (client.via as u64 & Self::VIA) | (client.place as u64) << 26;
        Self(self.0 & !(Self::VIA | 3 << 26) | place)
    }

    /// Whether the entry is still of the same flow as when its head was `before`.
    #[inline(always)]
    pub(super) const fn is_still(self, before: Self) -> bool {
        (self.0 ^ before.0) & (Self::COUNT | Self::BUSY) == 0
    }

    /// The head of the next flow in the same way.
    #[inline(always)]
    pub(super) const fn before(self, next: u64) -> Self {
        Self(next & !Self::COUNT | self.0.wrapping_add(Self::NEXT) & Self::COUNT)
    }

    /// Ticks since it was last used. None if that is yet to come: another CPU may be ahead of this one's `now`.
    #[inline(always)]
    pub const fn age(self, now: u32) -> u32 {
        let age = now.wrapping_sub((self.0 >> Self::SEEN) as u32) & Self::TIME as u32;
        if age > Self::TIME as u32 / 2 { 0 } else { age }
    }

    /// Used now, with further states.
    #[inline(always)]
    pub const fn used(self, now: u32, states: u64) -> Self {
        let kept = self.0 & !(Self::TIME << Self::SEEN);
        Self(kept | states | (now as u64 & Self::TIME) << Self::SEEN)
    }

    /// Whether it is as good as forgotten.
    #[inline(always)]
    pub const fn is_over(self, proto: u8, now: u32, timeouts: &Timeouts) -> bool {
        self.has(Self::CLOSING) || self.age(now) > self.timeout(proto, timeouts)
    }

    /// How long it is remembered, in ticks.
    #[inline(always)]
    pub const fn timeout(self, proto: u8, timeouts: &Timeouts) -> u32 {
        if self.has(Self::CLOSING) {
            timeouts.closing
        } else if self.has(Self::ESTABLISHED) {
            if proto == TCP { timeouts.established } else { timeouts.stream }
        } else if proto == TCP {
            timeouts.opening
        } else {
            timeouts.datagram
        }
    }

    /// How gladly it is given up for another: 0 is never.
    #[inline(always)]
    pub(super) const fn spare(self, proto: u8, now: u32, timeouts: &Timeouts) -> u32 {
        if self.has(Self::BUSY) {
            0
        } else if self.is_empty() {
            4
        } else if self.age(now) > self.timeout(proto, timeouts) {
            3
        } else if self.has(Self::CLOSING) {
            2
        } else if !self.has(Self::ESTABLISHED) {
            1
        } else {
            0
        }
    }
}

/// What a packet says of the state of the side that sent it.
#[inline(always)]
pub const fn states(packet: &Packet) -> u64 {
    if packet.proto != TCP {
        return Head::ESTABLISHED;
    }
    let mut states = 0;
    if packet.flags & (tcp::FIN | tcp::RST) != 0 {
        states |= Head::CLOSING;
    }
    // A SYN and its answer cost nobody anything; what comes after them does.
    if packet.flags & (tcp::SYN | tcp::RST) == 0 {
        states |= Head::ESTABLISHED;
    }
    states
}
