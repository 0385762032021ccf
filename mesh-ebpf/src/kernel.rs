//! What the pipeline asks of whoever runs it: the maps, the clock, and counting.

use crate::abi::{
    Addr16, AffinityKey, AffinityValue, Backend, Config, Endpoint, Frontend, FrontendKey, Mac, NetPort,
    Network, Peer, Published, Served, ServedKey, Sign, SourceKey,
};
use crate::flow::{Head, Shared};
use crate::packet::Packet;
use crate::pipeline::{Seen, step};
use crate::verdict::{Event, Verdict};

/// The maps of a node. In the kernel the real ones.
pub trait Kernel {
    /// What holds for the node.
    fn config(&self) -> &Config;
    /// Ticks since some moment.
    fn now(&self) -> u32;
    /// A frontend.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// The backend id in a slot.
    fn slot(&self, slot: u32) -> u32;
    /// A backend.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Another node.
    fn peer(&self, number: u32) -> Option<&Peer>;
    /// The number of the node with an underlay address.
    fn peer_number(&self, addr: &Addr16) -> Option<u32>;
    /// The task behind a device.
    fn endpoint(&self, device: u32) -> Option<&Endpoint>;
    /// The task with a MAC.
    fn endpoint_of(&self, mac: Mac) -> Option<&Endpoint>;
    /// A network.
    fn network(&self, vni: u32) -> Option<&Network>;
    /// Whether an address is the node's own, outside of the mesh.
    fn is_local(&self, addr: &Addr16) -> bool;
    /// Where a port is published. May not err to "nowhere".
    fn published(&self, proto: u8, port: NetPort) -> Published;
    /// Whether an address may be a VIP. May err to "yes", but seldom.
    fn may_be_vip(&self, addr: &Addr16) -> bool;
    /// Whether a guarded frontend lets a client in.
    fn lets_in(&self, source: &SourceKey) -> bool;
    /// Where a client's flows go.
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue>;
    /// Remembers it.
    fn remember(&self, key: &AffinityKey, value: &AffinityValue);
    /// The place of a flow.
    fn bucket(&self, proto: u8, place: u32) -> Option<Shared<'_>>;
    /// Counts.
    fn count(&self, event: Event);
    /// Counts a packet to a backend.
    fn account(&self, backend: u32, bytes: u16, new_flow: bool);
    /// Flows that a backend has, as far as they are counted.
    fn active(&self, backend: u32) -> i64;
    /// Has it have so many more.
    fn more_active(&self, backend: u32, flows: i64);
    /// Whose port a port of a task of this node is, if it is known to be served.
    fn served(&self, key: &ServedKey) -> Option<Served>;
    /// Counts what a task made of a connection.
    fn note(&self, index: u32, sign: Sign);

    // Steps of the pipeline that are long, and taken from several places. The kernel's verifier follows a program
    // through each call of a function again, unless it is a global one: programs have these as such.

    /// See [`step::answer`].
    #[inline(always)]
    fn answer(&self, packet: &mut Packet) -> Verdict
    where
        Self: Sized,
    {
        step::answer(self, packet)
    }

    /// See [`step::error`].
    #[inline(always)]
    fn error(&self, packet: &mut Packet) -> Verdict
    where
        Self: Sized,
    {
        step::error(self, packet)
    }

    /// See [`step::pick`].
    #[inline(always)]
    fn pick(&self, packet: &Packet) -> u32
    where
        Self: Sized,
    {
        step::pick(self, packet)
    }

    /// See [`step::retrace`].
    #[inline(always)]
    fn retrace(&self, packet: &mut Packet) -> Head
    where
        Self: Sized,
    {
        step::retrace(self, packet)
    }

    /// See [`step::undo`].
    #[inline(always)]
    fn undo(&self, packet: &mut Packet) -> Head
    where
        Self: Sized,
    {
        step::undo(self, packet)
    }

    /// See [`step::readmit`].
    #[inline(always)]
    fn readmit(&self, packet: &mut Packet, head: Head) -> Head
    where
        Self: Sized,
    {
        step::readmit(self, packet, head)
    }

    /// See [`step::begin`].
    #[inline(always)]
    fn begin(&self, packet: &mut Packet, head: Head) -> Verdict
    where
        Self: Sized,
    {
        step::begin(self, packet, head)
    }

    /// See [`step::origin`].
    #[inline(always)]
    fn origin(&self, packet: &mut Packet, proto: u8, put: bool) -> bool
    where
        Self: Sized,
    {
        step::origin(self, packet, proto, put)
    }

    /// See [`step::place`].
    #[inline(always)]
    fn place(&self, packet: &Packet, may_insert: bool) -> bool
    where
        Self: Sized,
    {
        step::place(self, packet, may_insert)
    }

    /// See [`step::sign`].
    #[inline(always)]
    fn sign(&self, packet: &Packet, seen: Seen, of: u32)
    where
        Self: Sized,
    {
        step::sign(self, packet, seen, of);
    }
}
