//! The headers of an answer, written by words at constant places.

use super::{ETH, IP, IPV4, Reply, TTL};
use crate::abi::Addr16;
use crate::csum::{add, fold};
use crate::frame::Frame;

/// Two halves of a word as they follow each other in memory.
#[inline(always)]
const fn pair(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        first as u32 | (second as u32) << 16
    } else {
        (first as u32) << 16 | second as u32
    }
}

/// The frame's addresses exchanged; `false` if it was for many.
#[inline(always)]
pub(super) fn ethernet(out: &mut Reply, frame: &Frame<'_>, ethertype: u16) -> bool {
    let Some([d0, d1, d2, s0, s1, s2]) = frame.at::<[u16; 6]>(0) else { return false };
    if d0.to_ne_bytes()[0] & 1 != 0 {
        return false;
    }
    out.words[0] = pair(0, s0);
    out.words[1] = pair(s1, s2);
    out.words[2] = pair(d0, d1);
    out.words[3] = pair(d2, ethertype);
    true
}

/// An IPv4 header with its checksum. Returns the sum of the pseudo-header.
#[inline(always)]
pub(super) fn ipv4(out: &mut Reply, src: &Addr16, dst: &Addr16, proto: u8, payload: u16) -> u32 {
    let first = pair(u16::from_ne_bytes([0x45, 0]), (IPV4 as u16 + payload).to_be());
    // No identification is needed where nothing is fragmented (RFC 6864 §4.1).
    let second = u32::from_ne_bytes([0, 0, 0x40, 0]);
    let third = u16::from_ne_bytes([TTL, proto]);
    let addresses = add(src.0[3], dst.0[3]);
    let sum = add(add(first, second), add(third as u32, addresses));
    out.words[IP] = first;
    out.words[IP + 1] = second;
    out.words[IP + 2] = pair(third, !fold(sum));
    out.words[IP + 3] = src.0[3];
    out.words[IP + 4] = dst.0[3];
    add(addresses, add((proto as u32).to_be(), (payload as u32).to_be()))
}

/// An IPv6 header. Returns the sum of the pseudo-header (RFC 8200 §8.1).
#[inline(always)]
pub(super) fn ipv6(out: &mut Reply, src: &Addr16, dst: &Addr16, proto: u8, payload: u16) -> u32 {
    out.words[IP] = u32::from_ne_bytes([0x60, 0, 0, 0]);
    out.words[IP + 1] = pair(payload.to_be(), u16::from_ne_bytes([proto, TTL]));
    let mut sum = add((proto as u32).to_be(), (payload as u32).to_be());
    let mut word = 0;
    while word < 4 {
        out.words[IP + 2 + word] = src.0[word];
        out.words[IP + 6 + word] = dst.0[word];
        sum = add(sum, add(src.0[word], dst.0[word]));
        word += 1;
    }
    sum
}

/// A TCP header at a word, with the checksum that goes on from the pseudo-header's sum.
#[inline(always)]
pub(super) fn put_segment<const AT: usize>(out: &mut Reply, segment: &[u32; 4], pseudo: u32) {
    let [ports, seq, ack, rest] = *segment;
    let sum = add(pseudo, add(add(ports, seq), add(ack, rest)));
    out.words[AT] = ports;
    out.words[AT + 1] = seq;
    out.words[AT + 2] = ack;
    out.words[AT + 3] = rest;
    out.words[AT + 4] = pair(!fold(sum), 0);
}

/// An ICMP error at a word, with what it quotes and the checksum.
#[inline(always)]
pub(super) fn put_error<const AT: usize, const QUOTED: usize>(
    out: &mut Reply,
    frame: &Frame<'_>,
    first: u32,
    rest: u32,
    pseudo: u32,
) -> bool {
    let Some(quoted) = frame.at::<[u32; QUOTED]>(ETH) else { return false };
    let mut sum = add(pseudo, add(first, rest));
    let mut word = 0;
    while word < QUOTED {
        out.words[AT + 2 + word] = quoted[word];
        sum = add(sum, quoted[word]);
        word += 1;
    }
    let [kind, code, ..] = first.to_ne_bytes();
    out.words[AT] = pair(u16::from_ne_bytes([kind, code]), !fold(sum));
    out.words[AT + 1] = rest;
    true
}
