//! Frames, built and read by hand: nothing here uses the code that is tested.

use std::net::{IpAddr, SocketAddr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
const FRAGMENT_HEADER: u8 = 44;
/// Bytes of an Ethernet header.
pub(crate) const ETH: usize = 14;
/// The addresses of a frame that is built.
pub(crate) const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]];

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) proto: u8,
    /// TCP flags, or an ICMP type.
    pub(crate) flags: u8,
    /// Where the transport header begins.
    pub(crate) l4: usize,
    /// Where the packet ends: after that there is padding.
    pub(crate) end: usize,
}

/// A frame with right checksums. `flags` are of TCP, or an ICMP type.
pub(crate) fn frame(proto: u8, flags: u8, src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut transport = Vec::new();
    match proto {
        TCP | UDP => {
            transport.extend(src.port().to_be_bytes());
            transport.extend(dst.port().to_be_bytes());
        }
        _ => transport.extend([flags, 0, 0, 0]),
    }
    match proto {
        TCP => transport.extend([1, 2, 3, 4, 5, 6, 7, 8, 5 << 4, flags, 0x20, 0, 0, 0, 0, 0]),
        UDP => {
            transport.extend((8 + payload.len() as u16).to_be_bytes());
            transport.extend([0, 0]);
        }
        _ => transport.extend([0x77, 0x88, 0, 1]),
    }
    transport.extend(payload);
    let mut bytes = MACS.concat();
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((20 + transport.len() as u16).to_be_bytes());
            bytes.extend([0x12, 0x34, 0x40, 0, 63, proto, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((transport.len() as u16).to_be_bytes());
            bytes.extend([proto, 63]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        _ => panic!("two families: {src} and {dst}"),
    }
    bytes.extend(transport);
    sum_up(&mut bytes);
    bytes
}

/// The frame with IPv6's fragment header, as of a packet that was never cut (RFC 6946).
pub(crate) fn in_one_fragment(bytes: &[u8]) -> Vec<u8> {
    let (header, transport) = bytes.split_at(ETH + 40);
    let mut bytes = [header, &[header[ETH + 6], 0, 0, 0, 9, 9, 9, 9], transport].concat();
    let len = (8 + transport.len() as u16).to_be_bytes();
    bytes[ETH + 4..ETH + 7].copy_from_slice(&[len[0], len[1], FRAGMENT_HEADER]);
    bytes
}

/// What a frame says; none where there is no header of a known protocol.
pub(crate) fn read(bytes: &[u8]) -> Option<Seen> {
    let be = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (proto, l4, end, src, dst): (u8, usize, usize, IpAddr, IpAddr) = match be(12)? {
        0x0800 => {
            let four = |at: usize| Some(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?.into());
            let l4 = ETH + usize::from(*bytes.get(ETH)? & 15) * 4;
            (*bytes.get(ETH + 9)?, l4, ETH + usize::from(be(ETH + 2)?), four(ETH + 12)?, four(ETH + 16)?)
        }
        0x86dd => {
            let six = |at: usize| Some(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?.into());
            let end = ETH + 40 + usize::from(be(ETH + 4)?);
            let proto = match *bytes.get(ETH + 6)? {
                FRAGMENT_HEADER => bytes.get(ETH + 40).map(|proto| (*proto, ETH + 48)),
                proto => Some((proto, ETH + 40)),
            };
            let (proto, l4) = proto?;
            (proto, l4, end, six(ETH + 8)?, six(ETH + 24)?)
        }
        _ => return None,
    };
    let (ports, flags) = match proto {
        TCP => ([be(l4)?, be(l4 + 2)?], *bytes.get(l4 + 13)?),
        UDP => ([be(l4)?, be(l4 + 2)?], 0),
        ICMP | ICMP6 => ([0, 0], *bytes.get(l4)?),
        _ => return None,
    };
    let [src, dst] = [SocketAddr::new(src, ports[0]), SocketAddr::new(dst, ports[1])];
    Some(Seen { src, dst, proto, flags, l4, end })
}

/// Where the checksum of the transport header is.
pub(crate) fn sum_place(seen: &Seen) -> usize {
    seen.l4
        + match seen.proto {
            TCP => 16,
            UDP => 6,
            _ => 2,
        }
}

/// Whether all checksums are right, added up anew.
pub(crate) fn is_right(bytes: &[u8]) -> bool {
    let Some(seen) = read(bytes) else { return false };
    if seen.src.is_ipv4() && fold(&bytes[ETH..seen.l4]) != 0xffff {
        return false;
    }
    let Some(transport) = bytes.get(seen.l4..seen.end) else { return false };
    let none = seen.proto == UDP && seen.src.is_ipv4() && transport[6..8] == [0, 0];
    none || fold(&[pseudo(&seen, transport.len()).as_slice(), transport].concat()) == 0xffff
}

/// Puts right checksums into a frame.
pub(crate) fn sum_up(bytes: &mut [u8]) {
    let Some(seen) = read(bytes) else { return };
    if seen.src.is_ipv4() {
        bytes[ETH + 10..ETH + 12].fill(0);
        let sum = !fold(&bytes[ETH..seen.l4]);
        bytes[ETH + 10..ETH + 12].copy_from_slice(&sum.to_be_bytes());
    }
    let place = sum_place(&seen);
    bytes[place..place + 2].fill(0);
    let Some(transport) = bytes.get(seen.l4..seen.end) else { return };
    let sum = match !fold(&[pseudo(&seen, transport.len()).as_slice(), transport].concat()) {
        0 if seen.proto == UDP => 0xffff,
        sum => sum,
    };
    bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The frame with these addresses and ports instead, checksums left alone.
pub(crate) fn with_ends(bytes: &[u8], src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(seen) = read(&bytes) else { return bytes };
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes[ETH + 12..ETH + 20].copy_from_slice(&[src.octets(), dst.octets()].concat());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes[ETH + 8..ETH + 40].copy_from_slice(&[src.octets(), dst.octets()].concat());
        }
        _ => panic!("two families: {src} and {dst}"),
    }
    if [TCP, UDP].contains(&seen.proto) {
        let ports = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
        bytes[seen.l4..seen.l4 + 4].copy_from_slice(&ports);
    }
    bytes
}

/// The frame without its checksums, which two ways of adding may write differently: zero has two forms.
pub(crate) fn without_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(seen) = read(&bytes) {
        if seen.src.is_ipv4() {
            bytes[ETH + 10..ETH + 12].fill(0);
        }
        let place = sum_place(&seen);
        if let Some(field) = bytes.get_mut(place..place + 2) {
            field.fill(0);
        }
    }
    bytes
}

fn pseudo(seen: &Seen, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (seen.src.ip(), seen.dst.ip()) {
        _ if seen.proto == ICMP => return bytes,
        (IpAddr::V4(src), IpAddr::V4(dst)) => bytes.extend([src.octets(), dst.octets()].concat()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => bytes.extend([src.octets(), dst.octets()].concat()),
        _ => {}
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, seen.proto]);
    bytes
}

/// The ones' complement sum (RFC 1071).
fn fold(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
