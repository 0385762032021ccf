//! Packets, read by other code than that which is fuzzed.

use std::net::IpAddr;

use mesh_ebpf::abi::{ICMP, ICMP6, TCP, UDP};
use mesh_ebpf::testing::{checksum, checksum_of};

/// Bytes of an Ethernet header.
pub const ETH: usize = 14;

/// What a packet says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    /// Of the sender and the receiver; 0 where there are none.
    pub ports: (u16, u16),
    /// Where the transport header begins, from the start of the IP header.
    pub l4: usize,
    /// Where the packet ends, as its IP header says; none: more than that can say.
    pub end: Option<usize>,
    /// Bytes of the whole transport payload that come before this fragment, and whether others come after it.
    pub fragment: (usize, bool),
    /// What fragments have in common.
    pub id: u32,
    /// Nobody may fragment it.
    pub whole: bool,
}

/// Reads an IP packet. None: it contradicts itself, or ends too early, or has options.
pub fn ip(packet: &[u8]) -> Option<Read> {
    match packet.first()? >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => None,
    }
}

/// Reads a frame.
pub fn frame(frame: &[u8]) -> Option<Read> {
    let (ethernet, packet) = frame.split_at_checked(ETH)?;
    let version = packet.first()? >> 4;
    matches!((&ethernet[12..], version), ([0x08, 0x00], 4) | ([0x86, 0xdd], 6)).then(|| ip(packet))?
}

fn v4(packet: &[u8]) -> Option<Read> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let end = usize::from(be(&header[2..4]));
    let fragment = be(&header[6..8]);
    if header[0] != 0x45 || (end != 0 && end < 20) || header[9] == ICMP6 {
        return None;
    }
    let read = Read {
        src: four(header, 12),
        dst: four(header, 16),
        proto: header[9],
        ports: (0, 0),
        l4: 20,
        end: Some(end).filter(|end| *end != 0),
        fragment: (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0),
        id: u32::from(be(&header[4..6])),
        whole: fragment & 0x4000 != 0,
    };
    transport(packet, read)
}

fn v6(packet: &[u8]) -> Option<Read> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let payload = usize::from(be(&header[4..6]));
    let (src, dst) = (sixteen(header, 8), sixteen(header, 24));
    if payload > 65_535 - 40 || is_mapped(&src) || is_mapped(&dst) {
        return None;
    }
    let (mut proto, mut l4, mut fragment, mut id) = (header[6], 40, (0, false), 0);
    if proto == 44 {
        let extension: &[u8; 8] = packet[40..].first_chunk()?;
        (proto, l4) = (extension[0], 48);
        let field = be(&extension[2..4]);
        fragment = (usize::from(field & !7), field & 1 != 0);
        id = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
    }
    if proto == ICMP {
        return None;
    }
    let end = Some(payload + 40).filter(|_| payload != 0);
    transport(packet, Read { src, dst, proto, ports: (0, 0), l4, end, fragment, id, whole: true })
}

fn transport(packet: &[u8], mut read: Read) -> Option<Read> {
    if read.fragment.0 != 0 {
        return (read.end? >= read.l4).then_some(read);
    }
    let header = match read.proto {
        TCP => 20,
        UDP | ICMP | ICMP6 => 8,
        _ => return None,
    };
    // Only what the kernel joined from segments is longer than its header says.
    let end = read.end.or((read.proto == TCP).then_some(65_535))?;
    let bytes = packet.get(read.l4..read.l4 + header)?;
    if read.l4 + header > end {
        return None;
    }
    if read.proto == TCP || read.proto == UDP {
        read.ports = (be(&bytes[..2]), be(&bytes[2..4]));
    }
    Some(read)
}

/// Of IPv4 in the form of IPv6, which no packet may have.
fn is_mapped(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn four(bytes: &[u8], at: usize) -> IpAddr {
    IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn sixteen(bytes: &[u8], at: usize) -> IpAddr {
    IpAddr::from(std::array::from_fn::<u8, 16, _>(|byte| bytes[at + byte]))
}

/// Two bytes as a number.
pub fn be(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

impl Read {
    /// Of a fragment that is not the first.
    pub fn is_later(&self) -> bool {
        self.fragment.0 != 0
    }

    /// Cut into parts.
    pub fn is_part(&self) -> bool {
        self.fragment != (0, false)
    }

    /// An ICMP message about another packet: RFC 792, RFC 4443.
    pub fn is_error(&self, packet: &[u8]) -> bool {
        let kind = packet.get(self.l4).filter(|_| !self.is_later());
        match self.proto {
            ICMP => matches!(kind, Some(3 | 11 | 12)),
            ICMP6 => kind.is_some_and(|kind| *kind < 128),
            _ => false,
        }
    }
}

/// A whole packet whose lengths and checksums are right, and what it says.
pub fn valid(packet: &[u8]) -> Result<Read, String> {
    let read = ip(packet).ok_or("it cannot be read")?;
    if read.end != Some(packet.len()) {
        return Err(format!("it has {} bytes, and says {:?}", packet.len(), read.end));
    }
    if read.src.is_ipv4() && checksum(&packet[..20]) != 0 {
        return Err("the checksum of its header is wrong".to_owned());
    }
    if !read.is_part() && checksum_of(&read.src, &read.dst, read.proto, &packet[read.l4..]) != 0 {
        return Err("the checksum of its transport header is wrong".to_owned());
    }
    Ok(read)
}

/// What an ICMP error is about: its first bytes, and who speaks to whom in it. None: too little of it, or nothing with
/// ports.
pub fn quote<'a>(packet: &'a [u8], error: &Read) -> Option<(&'a [u8], Read)> {
    let v4 = error.proto == ICMP;
    // No error is in a fragment, not even in a single one.
    let quoted = packet.get(error.l4 + 8..).filter(|_| v4 || error.l4 == 40)?;
    let header = if v4 { 20 } else { 40 };
    let ports = quoted.get(header..header + 4)?;
    let proto = quoted[if v4 { 9 } else { 6 }];
    let first = !v4 || (quoted[0] == 0x45 && be(&quoted[6..8]) & 0x1fff == 0);
    let (src, dst) =
        if v4 { (four(quoted, 12), four(quoted, 16)) } else { (sixteen(quoted, 8), sixteen(quoted, 24)) };
    if !first || is_mapped(&src) || is_mapped(&dst) || (proto != TCP && proto != UDP) {
        return None;
    }
    let ports = (be(&ports[..2]), be(&ports[2..]));
    let read =
        Read { src, dst, proto, ports, l4: header, end: None, fragment: (0, false), id: 0, whole: false };
    Some((quoted, read))
}
