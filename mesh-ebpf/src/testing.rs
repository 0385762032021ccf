//! For tests and for fuzzing: frames, built by hand, and a node without a kernel.
//!
//! Nothing here uses the code that is tested.

use std::net::{IpAddr, SocketAddr};

use crate::abi::{Addr16, ICMP, ICMP6, TCP, UDP};
use crate::frame::Frame;
use crate::packet::{Packet, Skip};

mod node;

pub use node::Node;

/// The destination MAC of each frame.
pub const TO_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
/// The source MAC of each frame.
pub const FROM_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

/// An address.
pub fn addr(text: &str) -> Addr16 {
    text.parse::<IpAddr>().unwrap().into()
}

/// A packet that is to be built.
#[derive(Clone, Debug)]
pub struct Build {
    /// The sender.
    pub src: SocketAddr,
    /// The receiver.
    pub dst: SocketAddr,
    /// IP protocol: TCP, UDP, ICMP or ICMPv6.
    pub proto: u8,
    /// TCP flags, or an ICMP type.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// What comes after the transport header.
    pub payload: Vec<u8>,
    /// Of IPv4; a multiple of four bytes.
    pub options: Vec<u8>,
    /// Of IPv6: kinds and bytes of bodies, each 6 more than a multiple of eight.
    pub extensions: Vec<(u8, usize)>,
    /// The 16 bits of IPv4 with the flags and the offset; of IPv6 a fragment header, if it is not zero.
    pub fragment: u16,
    /// Words of TCP options.
    pub tcp_options: usize,
}

fn build(src: &str, dst: &str, proto: u8, flags: u8) -> Build {
    between(src.parse().unwrap(), dst.parse().unwrap(), proto, flags)
}

/// A packet of a protocol, with the flags of TCP or the type of an ICMP message.
pub fn between(src: SocketAddr, dst: SocketAddr, proto: u8, flags: u8) -> Build {
    Build {
        src,
        dst,
        proto,
        flags,
        seq: 0x0102_0304,
        ack: 0x0506_0708,
        payload: Vec::new(),
        options: Vec::new(),
        extensions: Vec::new(),
        fragment: 0,
        tcp_options: 0,
    }
}

/// A TCP segment.
pub fn tcp(src: &str, dst: &str, flags: u8) -> Build {
    build(src, dst, TCP, flags)
}

/// A UDP datagram.
pub fn udp(src: &str, dst: &str) -> Build {
    build(src, dst, UDP, 0)
}

/// An ICMP message of the addresses' family.
pub fn icmp(src: &str, dst: &str, kind: u8) -> Build {
    let proto = if src.parse::<IpAddr>().unwrap().is_ipv4() { ICMP } else { ICMP6 };
    let socket = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
    Build { src: socket(src), dst: socket(dst), flags: kind, ..build("0.0.0.0:0", "0.0.0.0:0", proto, 0) }
}

impl Build {
    /// With this payload.
    pub fn with(self, payload: &[u8]) -> Self {
        Self { payload: payload.to_vec(), ..self }
    }

    /// Bytes before the transport header.
    pub fn l4(&self) -> usize {
        let headers = if self.src.is_ipv4() { 20 + self.options.len() } else { 40 };
        14 + headers + self.extensions.iter().map(|(_, len)| len + 2).sum::<usize>()
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let at = match self.proto {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let sum = checksum_of(&self.src.ip(), &self.dst.ip(), self.proto, &transport);
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut frame = [TO_MAC, FROM_MAC].concat();
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([8, 0]);
                let header = 20 + self.options.len();
                let mut ip = vec![0x40 | (header / 4) as u8, 0];
                ip.extend(((header + transport.len()) as u16).to_be_bytes());
                ip.extend([0x12, 0x34]);
                ip.extend(self.fragment.to_be_bytes());
                ip.extend([63, self.proto, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(&self.options);
                let sum = checksum(&ip).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                frame.extend(ip);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd]);
                let (first, extensions) = self.extensions();
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(((extensions.len() + transport.len()) as u16).to_be_bytes());
                frame.extend([first, 63]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                frame.extend(extensions);
            }
            _ => panic!("two families"),
        }
        frame.extend(transport);
        frame
    }

    fn extensions(&self) -> (u8, Vec<u8>) {
        let mut kinds: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        if self.fragment != 0 {
            kinds.push(44);
        }
        kinds.push(self.proto);
        let mut bytes = Vec::new();
        for (i, (_, len)) in self.extensions.iter().enumerate() {
            bytes.extend([kinds[i + 1], ((len + 2) / 8 - 1) as u8]);
            bytes.extend(vec![0; *len]);
        }
        if self.fragment != 0 {
            bytes.extend([self.proto, 0]);
            bytes.extend(self.fragment.to_be_bytes());
            bytes.extend([0, 0, 0, 7]);
        }
        (kinds[0], bytes)
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.proto {
            TCP => {
                bytes.extend(self.src.port().to_be_bytes());
                bytes.extend(self.dst.port().to_be_bytes());
                bytes.extend(self.seq.to_be_bytes());
                bytes.extend(self.ack.to_be_bytes());
                bytes.extend([((5 + self.tcp_options) << 4) as u8, self.flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(vec![1; 4 * self.tcp_options]);
            }
            UDP => {
                bytes.extend(self.src.port().to_be_bytes());
                bytes.extend(self.dst.port().to_be_bytes());
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            _ => bytes.extend([self.flags, 0, 0, 0, 0x77, 0x88, 0, 1]),
        }
        bytes.extend(&self.payload);
        bytes
    }

    /// The packet, as it is read from the frame.
    pub fn packet(&self) -> Packet {
        parse(&self.bytes()).unwrap()
    }
}

/// Reads a frame.
pub fn parse(bytes: &[u8]) -> Result<Packet, Skip> {
    Packet::parse(&Frame::new(bytes))
}

/// By the definition of RFC 1071.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// That of a transport header and payload. Zero over one that carries its right checksum.
pub fn checksum_of(src: &IpAddr, dst: &IpAddr, proto: u8, transport: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    if proto != ICMP {
        for address in [src, dst] {
            match address {
                IpAddr::V4(v4) => bytes.extend(v4.octets()),
                IpAddr::V6(v6) => bytes.extend(v6.octets()),
            }
        }
        bytes.extend((transport.len() as u32).to_be_bytes());
        bytes.extend([0, 0, 0, proto]);
    }
    bytes.extend(transport);
    checksum(&bytes)
}
