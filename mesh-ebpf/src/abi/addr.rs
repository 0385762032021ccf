//! Addresses and ports as they are on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 (mapped) or IPv6 address in network byte order.
///
/// Words and not bytes, because programs load, compare and sum words.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr16(pub [u32; 4]);

/// `00:00:ff:ff` as a word loaded from memory.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr16 {
    /// `0.0.0.0`, mapped: in a key "any IPv4 address".
    pub const ANY_V4: Self = Self::from_word(0);
    /// `::`: in a key "any IPv6 address".
    pub const ANY_V6: Self = Self([0; 4]);

    /// The mapped form of an IPv4 address, given as the word that it is in memory.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// Whether it is in 127.0.0.0/8 or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.0[3].to_ne_bytes()[0] == 127
        } else {
            self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1_u32.to_be()
        }
    }

    /// The address's bytes.
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        // SAFETY: both are 16 plain bytes.
        unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>([a, b, c, d]) }
    }
}

impl From<IpAddr> for Addr16 {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_word(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                let word = |i: usize| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]);
                Self([word(0), word(4), word(8), word(12)])
            }
        }
    }
}

impl From<Addr16> for IpAddr {
    fn from(address: Addr16) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.0[3].to_ne_bytes()))
        } else {
            Self::V6(Ipv6Addr::from(address.octets()))
        }
    }
}

/// A TCP or UDP port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NetPort(pub u16);

impl NetPort {
    /// Port 0: in a key "any port", in a value "as it is".
    pub const ANY: Self = Self(0);

    /// From the number that people write.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The number that people write.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }

    /// This port, or `other` where this is [`Self::ANY`].
    #[inline(always)]
    pub const fn or(self, other: Self) -> Self {
        if self.0 == 0 { other } else { self }
    }
}

/// An Ethernet address.
pub type Mac = [u8; 6];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.1.2.3", "127.0.0.1", "0.0.0.0", "::1", "fd00::1:2", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr16::from(address)), address);
            assert_eq!(Addr16::from(address).is_v4(), address.is_ipv4());
            assert_eq!(Addr16::from(address).is_loopback(), address.is_loopback(), "{address}");
        }
        assert_eq!(
            Addr16::from("10.1.2.3".parse::<IpAddr>().unwrap()).octets()[10..],
            [0xff, 0xff, 10, 1, 2, 3]
        );
    }
}
