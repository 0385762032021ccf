//! What a tunnelled frame says beside its packet.
//!
//! A packet for a published port crosses the tunnel as the client sent it. Where it is to go is in two fields
//! that an L3 overlay has no other use for: the destination MAC of the inner frame is the task's, and the tunnel's
//! key (VNI, RFC 7348 §5) has the upper half of its numbers for us, networks the lower. So the entry node alone
//! decides, and the task's node needs to know nothing of the service.

use crate::abi::NetPort;

/// VNIs from here on are tags. Networks' are below.
pub const FIRST_TAG: u32 = 0x80_0000;
const REPLY: u32 = 0x01_0000;

/// What a tunnel's key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A packet between tasks of a network.
    Network(u32),
    /// As the client sent it, for this port of the task with the frame's MAC.
    Forward(NetPort),
    /// As the client shall get it, for the node that the client came in by.
    Reply,
}

impl Tag {
    /// Reads a key.
    #[inline(always)]
    pub const fn of(vni: u32) -> Self {
        if vni < FIRST_TAG {
            Self::Network(vni)
        } else if vni & REPLY != 0 {
            Self::Reply
        } else {
            Self::Forward(NetPort::new(vni as u16))
        }
    }

    /// The key that says so.
    #[inline(always)]
    pub const fn vni(self) -> u32 {
        match self {
            Self::Network(vni) => vni,
            Self::Forward(port) => FIRST_TAG | port.number() as u32,
            Self::Reply => FIRST_TAG | REPLY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_are_written_and_fit_into_a_vni() {
        for tag in [
            Tag::Network(4096),
            Tag::Forward(NetPort::new(65_535)),
            Tag::Forward(NetPort::new(1)),
            Tag::Reply,
        ] {
            assert_eq!(Tag::of(tag.vni()), tag);
            assert!(tag.vni() < 1 << 24);
        }
    }
}
