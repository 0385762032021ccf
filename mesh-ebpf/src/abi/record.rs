//! What is told of a flow to those who watch.

use super::NO_BACKEND;
use crate::packet::{Packet, Tuple};
use crate::verdict::{Event, Verdict};

/// What became of a packet that began a flow, or that was turned away. What the ring [`super::map::RECORDS`] holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The packet as it came.
    pub tuple: Tuple,
    /// Where the flow goes; [`NO_BACKEND`]: nowhere.
    pub backend: u32,
    /// What happened, an [`Event`].
    pub event: u32,
    /// TCP, UDP, ICMP or ICMPv6.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl Record {
    /// No [`Event`]: there is nothing to tell.
    pub const NOTHING: u32 = Packet::NOTHING as u32;

    /// What there is to tell of a packet with this verdict.
    #[inline(always)]
    pub const fn event(packet: &Packet, verdict: Verdict) -> u32 {
        match verdict.dropped() {
            Some(event) => event,
            None => packet.event as u32,
        }
    }

    /// Of a packet, to which this happened.
    #[inline(always)]
    pub const fn new(packet: &Packet, event: u32) -> Self {
        let began = event == Event::NewFlow as u32 || event == Event::MidFlow as u32;
        Self {
            tuple: packet.tuple,
            // The flow as it is remembered was written down last.
            backend: if began { packet.draft.addr.0[0] } else { NO_BACKEND },
            event,
            proto: packet.proto,
            pad: [0; 3],
        }
    }

    /// As it comes out of the ring.
    #[cfg(feature = "user")]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; size_of::<Self>()] = bytes.try_into().ok()?;
        // SAFETY: as many bytes as it has; any are a record.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

const _: () = assert!(size_of::<Record>() == 48 && align_of::<Record>() == 4);
