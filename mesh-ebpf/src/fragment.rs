//! Fragments of packets: all go where the first one goes.
//!
//! Only the first has ports. What becomes of it is remembered for the others, by what they have in common; one that
//! overtook the first waits a little for it.

use crate::abi::Addr16;
use crate::packet::Packet;
use crate::verdict::{Hop, Verdict};

/// Key of `FRAGMENTS`: the same in all fragments of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// The sender.
    pub src: Addr16,
    /// The receiver.
    pub dst: Addr16,
    /// The packet's identification.
    pub id: u32,
    /// The device that it comes in by.
    pub device: u32,
}

/// Value of `FRAGMENTS`: what became of the first.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentValue {
    /// The sender that it was given.
    pub src: Addr16,
    /// The receiver that it was given.
    pub dst: Addr16,
    /// Where it went.
    pub hop: Hop,
    /// The [`Verdict`].
    pub verdict: u32,
}

const _: () = {
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentValue>() == 60);
};

impl FragmentKey {
    /// Of a fragment.
    #[inline(always)]
    pub const fn of(packet: &Packet, device: u32) -> Self {
        Self { src: packet.tuple.src, dst: packet.tuple.dst, id: packet.id, device }
    }
}

impl FragmentValue {
    /// What becomes of a first fragment, and so of those that follow. Where it is refused they are lost.
    #[inline(always)]
    pub fn of(packet: &Packet, verdict: Verdict) -> Self {
        let verdict = if verdict.refused().is_some() { Verdict::LOSE } else { verdict };
        Self { src: packet.sent.src, dst: packet.sent.dst, hop: packet.hop, verdict: verdict.0 }
    }

    /// Has the same become of a later one.
    #[inline(always)]
    pub const fn apply(&self, packet: &mut Packet) -> Verdict {
        packet.sent.src = self.src;
        packet.sent.dst = self.dst;
        packet.hop = self.hop;
        Verdict(self.verdict)
    }
}
