//! Keys and values of every map, byte for byte as the kernel stores them.
//!
//! Addresses are always 16 bytes, IPv4 in its IPv4-mapped form (`::ffff:a.b.c.d`), in network byte
//! order. Ports are in network byte order too, and [`NetPort`] keeps them as bytes, so that nobody
//! can take them for numbers by mistake. All other numbers are in the machine's own order.
//!
//! Maps compare keys byte by byte, padding included. Padding is therefore a named field, is zero,
//! and is set by the constructors.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Name of the map from [`FrontendKey`] to [`Frontend`] (a hash).
pub const FRONTENDS: &str = "FRONTENDS";
/// Name of the map from [`Frontend::table`] to [`Slots`] (an array).
pub const SLOTS: &str = "SLOTS";
/// Name of the map from backend id to [`Backend`] (an array).
pub const BACKENDS: &str = "BACKENDS";

/// How many frontends, and so how many slot tables, the maps hold.
///
/// The slot tables are allocated at once: 1,024 of 4 KiB are 4 MiB of kernel memory.
pub const MAX_FRONTENDS: u32 = 1024;

/// How many backends the map holds, the unused id 0 included.
pub const MAX_BACKENDS: u32 = 65_536;

/// Number of slots of a table.
///
/// A power of two, because the program must cut a random number down with a mask: after a modulo
/// the compiler forgets the bound, and the verifier refuses the access. 1,024 slots keep the shares
/// of 100 equal backends within 10 % of each other.
pub const SLOT_COUNT: u32 = 1024;

/// The id that means "no backend". Arrays start zeroed, so an unwritten slot is empty.
pub const NO_BACKEND: u32 = 0;

const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// An IPv4 (mapped) or IPv6 address in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr16(pub [u8; 16]);

impl Addr16 {
    /// The mapped form of an IPv4 address, given in network byte order.
    #[inline(always)]
    pub const fn from_v4([a, b, c, d]: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The IPv4 address in network byte order, or `None` if this is an IPv6 address.
    #[inline(always)]
    pub fn to_v4(self) -> Option<[u8; 4]> {
        let [p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, a, b, c, d] = self.0;
        if [p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11] == V4_PREFIX {
            Some([a, b, c, d])
        } else {
            None
        }
    }
}

impl From<IpAddr> for Addr16 {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Addr16> for IpAddr {
    fn from(addr: Addr16) -> Self {
        match addr.to_v4() {
            Some(v4) => IpAddr::V4(Ipv4Addr::from(v4)),
            None => IpAddr::V6(Ipv6Addr::from(addr.0)),
        }
    }
}

/// A TCP or UDP port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetPort(pub [u8; 2]);

impl NetPort {
    /// Port 0: in a [`FrontendKey`] "any port of this address", in a [`Backend`] "keep the client's".
    pub const ANY: Self = Self([0, 0]);

    /// From the number that people write.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be_bytes())
    }

    /// The number that people write.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

/// IP protocol number of TCP, as in [`FrontendKey::proto`].
pub const TCP: u8 = 6;
/// IP protocol number of UDP, as in [`FrontendKey::proto`].
pub const UDP: u8 = 17;

/// What a client asks for. Key of `FRONTENDS`.
///
/// Aligned to 4 bytes, so that the program builds it with word stores instead of byte stores.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The virtual address.
    pub addr: Addr16,
    /// The port, or [`NetPort::ANY`] for every port that has no entry of its own.
    pub port: NetPort,
    /// [`TCP`] or [`UDP`].
    pub proto: u8,
    /// Always zero.
    pub pad: u8,
}

impl FrontendKey {
    /// The key with its padding zeroed.
    #[inline(always)]
    pub const fn new(addr: Addr16, port: NetPort, proto: u8) -> Self {
        Self { addr, port, proto, pad: 0 }
    }

    /// The key of "any port" of the same address and protocol.
    #[inline(always)]
    pub const fn any_port(self) -> Self {
        Self::new(self.addr, NetPort::ANY, self.proto)
    }
}

/// What is known of a frontend. Value of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Index into `SLOTS`.
    pub table: u32,
    /// Number of backends that take new flows. At zero the program refuses without reading a slot.
    pub backends: u32,
}

/// A frontend's slots: each holds a backend id or [`NO_BACKEND`]. Value of `SLOTS`.
///
/// A backend's share of the new flows is its share of the slots. The table is written in place;
/// a reader meets old and new slots side by side, and both kinds are live backends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Backend ids.
    pub ids: [u32; SLOT_COUNT as usize],
}

// Never on the kernel's side: a value of 4 KiB does not fit its stack of 512 bytes.
#[cfg(not(target_arch = "bpf"))]
impl Slots {
    /// Deals the slots out to the backends in turn, so that shares differ by one slot at most.
    ///
    /// Without backends every slot is empty. Backends beyond [`SLOT_COUNT`] get no slot.
    pub fn deal(backends: &[u32]) -> Self {
        let mut ids = [NO_BACKEND; SLOT_COUNT as usize];
        for (slot, id) in ids.iter_mut().zip(backends.iter().cycle()) {
            *slot = *id;
        }
        Self { ids }
    }
}

/// Where a flow goes. Value of `BACKENDS`, whose index is the backend id.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The task's address.
    pub addr: Addr16,
    /// The task's port, or [`NetPort::ANY`] to keep the one that the client asked for.
    pub port: NetPort,
    /// Always zero.
    pub pad: [u8; 2],
}

impl Backend {
    /// The value with its padding zeroed.
    #[inline(always)]
    pub const fn new(addr: Addr16, port: NetPort) -> Self {
        Self { addr, port, pad: [0; 2] }
    }
}

// The layout is a promise to pinned maps: an agent that is upgraded finds the old one's maps.
const _: () = {
    assert!(size_of::<FrontendKey>() == 20 && align_of::<FrontendKey>() == 4);
    assert!(size_of::<Frontend>() == 8 && align_of::<Frontend>() == 4);
    assert!(size_of::<Slots>() == 4096 && align_of::<Slots>() == 4);
    assert!(size_of::<Backend>() == 20 && align_of::<Backend>() == 4);
    assert!(SLOT_COUNT.is_power_of_two());
};

#[cfg(feature = "user")]
mod user {
    use super::{Backend, Frontend, FrontendKey, Slots};

    // SAFETY: `repr(C)`, made of byte arrays and bytes only; the padding is a named field, so every
    // one of its bytes is initialised, and every bit pattern is a valid value.
    unsafe impl aya::Pod for FrontendKey {}
    // SAFETY: `repr(C)`, two `u32`: no padding, every bit pattern is valid.
    unsafe impl aya::Pod for Frontend {}
    // SAFETY: `repr(C)`, one array of `u32`: no padding, every bit pattern is valid.
    unsafe impl aya::Pod for Slots {}
    // SAFETY: `repr(C)`, made of byte arrays only; the padding is a named field, so every one of
    // its bytes is initialised, and every bit pattern is a valid value.
    unsafe impl aya::Pod for Backend {}
}

#[cfg(test)]
#[path = "abi_tests.rs"]
mod tests;
