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
    /// Beside a reply flow: the client's own address, where the backend does not know it.
    Origin = 3,
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

    /// Beyond this node.
    #[inline(always)]
    pub const fn is_outside(self) -> bool {
        matches!(self.place, Place::Uplink | Place::Peer)
    }
}

/// One word that says what an entry is, and whether it still counts.
///
/// From the lowest bit: 24 of `via`, 8 of role, place and marks, 20 of time, 4 of the idle timeout, 2 of state, 5 that
/// count the flows of the way, 1 that is set while the entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head(pub u64);

impl Head {
    /// The translation is made on this node.
    pub const HERE: u64 = 1 << 28;
    /// Reply: the client is the backend itself.
    pub const SELF: u64 = 1 << 29;
    /// Reply: the client sent from a loopback address.
    pub const LOOPBACK: u64 = 1 << 30;
    /// Forward: answers go straight to the client.
    pub const DIRECT: u64 = 1 << 29;
    /// Forward: it is counted among its backend's flows.
    pub const COUNTED: u64 = 1 << 30;
    /// The backend sees the node's address instead of the client's, which is in a [`Role::Origin`] entry.
    pub const SNAT: u64 = 1 << 31;
    const VIA: u64 = (1 << 24) - 1;
    const SEEN: u32 = 32;
    const TIME: u64 = (1 << 20) - 1;
    /// So old may what is written of an entry be, in ticks.
    const FRESH: u32 = 8;
    /// So far may another CPU be ahead.
    const AHEAD: u32 = 16;
    const IDLE: u32 = 52;
    const STATES: u32 = 56;
    /// More than the beginning was heard from this side.
    pub const ESTABLISHED: u64 = 1 << Self::STATES;
    /// This side, or the other, has ended.
    pub const CLOSING: u64 = 2 << Self::STATES;
    const COUNT: u64 = 0x1f << 58;
    const NEXT: u64 = 1 << 58;
    /// Somebody is writing the entry.
    pub(super) const BUSY: u64 = 1 << 63;

    /// The mark of a step of the idle timeout.
    #[inline(always)]
    pub const fn idle_mark(step: u32) -> u64 {
        (step as u64 & 15) << Self::IDLE
    }

    /// The step of its idle timeout.
    #[inline(always)]
    pub const fn idle(self) -> u32 {
        (self.0 >> Self::IDLE) as u32 & 15
    }

    /// Of a flow that begins now. Marks are of [`Self::HERE`] and those that follow it, and [`Self::idle_mark`].
    #[inline(always)]
    pub const fn new(role: Role, client: Client, marks: u64, now: u32) -> Self {
        let identity =
            (client.via as u64 & Self::VIA) | (role as u64) << 24 | (client.place as u64) << 26 | marks;
        Self(identity | (now as u64 & Self::TIME) << Self::SEEN)
    }

    /// Of the answers to a forward flow that is translated, with the marks that undo it.
    #[inline(always)]
    pub const fn answered(self, undone: u64) -> Self {
        let kept = self.0 & (Self::VIA | 3 << 26 | 15 << Self::IDLE | Self::TIME << Self::SEEN);
        Self(kept | (Role::Reply as u64) << 24 | undone)
    }

    /// Of the [`Role::Origin`] entry beside a reply flow.
    #[inline(always)]
    pub const fn beside(self) -> Self {
        Self(self.0 & !(3 << 24) | (Role::Origin as u64) << 24)
    }

    /// With the time and the states of another.
    #[inline(always)]
    pub const fn as_old_as(self, other: Self) -> Self {
        let both = Self::TIME << Self::SEEN | Self::ESTABLISHED | Self::CLOSING;
        Self(self.0 & !both | other.0 & both)
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

    /// Its role; none: it is empty, or somebody is writing it.
    pub const fn role(self) -> Option<Role> {
        match (self.0 >> 24) & 3 {
            _ if self.has(Self::BUSY) => None,
            1 => Some(Role::Forward),
            2 => Some(Role::Reply),
            3 => Some(Role::Origin),
            _ => None,
        }
    }

    /// With what another entry of the same flow knows of it.
    pub const fn joined(self, other: Self, now: u32) -> Self {
        let latest = if other.age(now) < self.age(now) { other } else { self };
        let states = (self.0 | other.0) & (Self::ESTABLISHED | Self::CLOSING);
        Self(latest.0 & Self::TIME << Self::SEEN | self.0 & !(Self::TIME << Self::SEEN) | states)
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

    /// Whether its way has had fewer flows than another: that one's were given up later. The counts wrap.
    #[inline(always)]
    pub(super) const fn had_fewer(self, other: Self) -> bool {
        (self.0 & Self::COUNT).wrapping_sub(other.0 & Self::COUNT) & Self::COUNT > Self::COUNT / 2
    }

    /// The head of the next flow in the same way.
    #[inline(always)]
    pub(super) const fn before(self, next: u64) -> Self {
        Self(next & !Self::COUNT | self.0.wrapping_add(Self::NEXT) & Self::COUNT)
    }

    /// Ticks since it was last used, of which it knows twelve days' worth. None if that is yet to come: another CPU
    /// may be ahead of this one's `now`.
    #[inline(always)]
    pub const fn age(self, now: u32) -> u32 {
        let age = now.wrapping_sub((self.0 >> Self::SEEN) as u32) & Self::TIME as u32;
        if age > Self::TIME as u32 - Self::AHEAD { 0 } else { age }
    }

    /// Whether the moment of its last use is to be written anew: after some seconds, or a sixteenth of a short
    /// timeout. Each write costs as much as all else that is done with a known flow; but answers to one that comes by
    /// another node follow only with the next.
    #[inline(always)]
    pub const fn is_stale(self, proto: u8, now: u32, timeouts: &Timeouts) -> bool {
        let age = self.age(now);
        age > Self::FRESH || age > self.timeout(proto, timeouts) / 16
    }

    /// After a packet, whose sender's states these are, with the client where it is now.
    #[inline(always)]
    pub const fn heard(self, client: Client, states: u64, proto: u8, now: u32, timeouts: &Timeouts) -> Self {
        let head = Self(self.by(client).0 | states);
        if head.0 != self.0 || self.is_stale(proto, now, timeouts) { head.used(now, 0) } else { head }
    }

    /// Of nobody from now on: it is not found any more, and gives way to others.
    #[inline(always)]
    pub const fn forgotten(self) -> Self {
        Self(self.0 & !(3 << 24) | Self::CLOSING)
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
        timeouts.of(proto, (self.0 >> Self::STATES) as u32, self.idle())
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
