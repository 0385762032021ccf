//! Frames from clients of which no two are alike.

use std::net::IpAddr;

use mesh_ebpf::abi::{Addr16, NetPort, TCP};
use mesh_ebpf::packet::{Tuple, tcp};

const TO: [u8; 6] = [2, 0, 0, 0, 0, 0xaa];
const FROM: [u8; 6] = [2, 0, 0, 0, 0, 0xbb];

/// One to a port of the node, from any client.
pub(super) struct Frame {
    bytes: Vec<u8>,
    proto: u8,
    v6: bool,
}

impl Frame {
    /// A segment with these flags, or a datagram.
    pub(super) fn new(proto: u8, node: IpAddr, flags: u8) -> Self {
        let transport = if proto == TCP { 20 } else { 8 } + PAYLOAD;
        let mut bytes = [TO, FROM].concat();
        match node {
            IpAddr::V4(node) => {
                bytes.extend([8, 0, 0x45, 0, 0, 20 + transport, 0, 1, 0x40, 0, 64, proto, 0, 0]);
                bytes.extend([0; 4]);
                bytes.extend(node.octets());
            }
            IpAddr::V6(node) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, transport, proto, 64]);
                bytes.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
                bytes.extend(node.octets());
            }
        }
        // Programs change checksums by what they change, right or not, but take 0 in a datagram for none.
        if proto == TCP {
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 0x20, 0, 0x12, 0x34, 0, 0]);
        } else {
            bytes.extend([0, 0, 0, 0, 0, 8 + PAYLOAD, 0x12, 0x34]);
        }
        bytes.extend([0x55; PAYLOAD as usize]);
        Self { bytes, proto, v6: node.is_ipv6() }
    }

    /// The frame of a client, of which there are four million, to a port.
    pub(super) fn from(&mut self, client: u32, port: u16) -> &[u8] {
        let (address, ports) = self.places();
        self.bytes[address..address + 4].copy_from_slice(&last_word(client).to_be_bytes());
        self.bytes[ports..ports + 2].copy_from_slice(&client_port(client).to_be_bytes());
        self.bytes[ports + 2..ports + 4].copy_from_slice(&port.to_be_bytes());
        &self.bytes
    }

    /// Addresses and ports of the frame that was made last.
    pub(super) fn tuple(&self) -> Tuple {
        let (address, ports) = self.places();
        let port = |at: usize| NetPort::new(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]));
        let end = |at: usize| {
            let word = |at: usize| {
                let bytes = &self.bytes[at..at + 4];
                u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            };
            if self.v6 {
                Addr16([word(at - 12), word(at - 8), word(at - 4), word(at)])
            } else {
                Addr16::from_word(word(at))
            }
        };
        let after = address + if self.v6 { 16 } else { 4 };
        Tuple::new(end(address), port(ports), end(after), port(ports + 2))
    }

    /// TCP or UDP.
    pub(super) fn proto(&self) -> u8 {
        self.proto
    }

    /// Where the last word of the client's address is, and the ports.
    fn places(&self) -> (usize, usize) {
        if self.v6 { (14 + 20, 14 + 40) } else { (14 + 12, 14 + 20) }
    }
}

/// A SYN, or the first datagram.
pub(super) const FIRST: u8 = tcp::SYN;
/// What comes after it.
pub(super) const LATER: u8 = tcp::ACK;
const PAYLOAD: u8 = 12;

/// In 100.64.0.0/10; of IPv6 the end.
fn last_word(client: u32) -> u32 {
    0x6440_0000 | client & 0x3f_ffff
}

fn client_port(client: u32) -> u16 {
    1024 + (client.wrapping_mul(7919) % 60_000) as u16
}
