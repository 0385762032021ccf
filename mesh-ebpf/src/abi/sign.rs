//! What tasks make of connections: by this sick ones are found.

use super::{Addr16, NetPort};

/// Ports and tasks whose signs are counted.
pub const SERVED: u32 = 16_384;
/// Tasks whose signs are counted.
pub const JUDGED: u32 = 8192;

/// A port that a task of this node is known to serve. Key of `SERVED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServedKey {
    /// The task's address.
    pub addr: Addr16,
    /// The port.
    pub port: NetPort,
    /// TCP or UDP.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

impl ServedKey {
    /// Of a task's port.
    #[inline(always)]
    pub const fn new(addr: Addr16, port: NetPort, proto: u8) -> Self {
        Self { addr, port, proto, pad: 0 }
    }
}

/// Whose port that is. Value of `SERVED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which [`Signs`] are the task's.
    pub index: u32,
    /// The network of the address: nobody else's packets get there, though they are seen.
    pub vni: u32,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sign {
    /// The task was given the first packet of a connection.
    Begun = 0,
    /// It took one up.
    Answered = 1,
    /// It turned one down, by a reset or by ICMP.
    Refused = 2,
    /// It turned a datagram down, by ICMP.
    Unreachable = 3,
}

/// How often, of one task. Value of `SIGNS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Signs(pub [i64; 4]);

impl Signs {
    /// How often; counts wrap.
    pub const fn of(&self, sign: Sign) -> u64 {
        self.0[sign as usize].cast_unsigned()
    }
}

const _: () = {
    assert!(size_of::<ServedKey>() == 20);
    assert!(size_of::<Served>() == 8);
    assert!(size_of::<Signs>() == 32);
};
