//! What a tunnelled frame says beside its packet.
//!
//! A packet for a published port crosses the tunnel as the client sent it. Where it is to go is in two fields
//! that an L3 overlay has no other use for: the destination MAC of the inner frame is the task's, and the tunnel's
//! key (VNI, RFC 7348 §5) has the upper half of its numbers for us, networks the lower. So the entry node alone
//! decides, and the task's node needs to know nothing of the service.

use crate::abi::NetPort;

/// VNIs from here on are tags. Networks' are below.
pub const FIRST_TAG: u32 = 0x80_0000;

/// What a tunnel's key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A packet between tasks of a network.
    Network(u32),
    /// As the client sent it, for this port of the task with the frame's MAC.
    Forward(NetPort, Terms),
    /// As the client shall get it, for the node that the client came in by.
    Reply,
    /// As the client sent it, back to the node that it came in by: the task is gone.
    Returned,
}

/// What the entry node asks of the task's, beside the port.
///
/// In the place of its bits in a tunnel's key: bit 17 says that answers need not come back, bit 18 that there is no
/// other task to send the packet to, four bits from 19 on are the step of the flow's idle timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Terms(u32);

const BACKWARDS: u32 = 1 << 16;
const FURTHER: u32 = 1 << 17;

impl Terms {
    const DIRECT: u32 = 1 << 17;
    const LAST: u32 = 1 << 18;
    const IDLE: u32 = 19;

    /// Of a flow.
    #[inline(always)]
    pub const fn new(direct: bool, last: bool, idle: u32) -> Self {
        let direct = if direct { Self::DIRECT } else { 0 };
        Self(direct | if last { Self::LAST } else { 0 } | (idle & 15) << Self::IDLE)
    }

    /// Answers go straight to the client.
    #[inline(always)]
    pub const fn direct(self) -> bool {
        self.0 & Self::DIRECT != 0
    }

    /// It was sent to another task before, which is gone.
    #[inline(always)]
    pub const fn last(self) -> bool {
        self.0 & Self::LAST != 0
    }

    /// The step of the idle timeout.
    #[inline(always)]
    pub const fn idle(self) -> u32 {
        self.0 >> Self::IDLE
    }
}

impl Tag {
    /// Reads a key.
    #[inline(always)]
    pub const fn of(vni: u32) -> Self {
        if vni < FIRST_TAG {
            Self::Network(vni)
        } else if vni & BACKWARDS == 0 {
            Self::Forward(NetPort::new(vni as u16), Terms(vni & (FIRST_TAG - BACKWARDS)))
        } else if vni & FURTHER == 0 {
            Self::Reply
        } else {
            Self::Returned
        }
    }

    /// The key that says so.
    #[inline(always)]
    pub const fn vni(self) -> u32 {
        match self {
            Self::Network(vni) => vni,
            Self::Forward(port, terms) => FIRST_TAG | terms.0 | port.number() as u32,
            Self::Reply => FIRST_TAG | BACKWARDS,
            Self::Returned => FIRST_TAG | BACKWARDS | FURTHER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_they_are_written_and_fit_into_a_vni() {
        let mut tags = vec![Tag::Network(4096), Tag::Reply, Tag::Returned];
        for port in [1, 80, 65_535] {
            for idle in 0..16 {
                for (direct, last) in [(false, false), (false, true), (true, false), (true, true)] {
                    let terms = Terms::new(direct, last, idle);
                    assert_eq!((terms.direct(), terms.last(), terms.idle()), (direct, last, idle));
                    tags.push(Tag::Forward(NetPort::new(port), terms));
                }
            }
        }
        for tag in tags {
            assert_eq!(Tag::of(tag.vni()), tag);
            assert!(tag.vni() < 1 << 24);
        }
    }
}
