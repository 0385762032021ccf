//! Answers that a program gives in the place of whoever a packet was for.
//!
//! Each is built whole from the packet that it answers, with full checksums: the packet may have headers that
//! the answer has not, and nothing of it may be taken for more than it is. All is written by words at constant
//! places into a buffer of the caller's, as the verifier wants it and the 512 bytes of stack allow.
//!
//! No answer goes to a sender that cannot be one host, nor to what came in a broadcast frame (RFC 1122 §3.2.2,
//! RFC 4443 §2.4, RFC 9293 §3.9.2.3), and none of IPv4 to a fragment that is not the first.

use crate::abi::{Addr16, ICMP, ICMP6, TCP};
use crate::csum::{diff, update};
use crate::frame::Frame;
use crate::packet::{ETH, Packet, tcp};

mod parts;

use parts::{ethernet, ipv4, ipv6, put_error, put_segment};

/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Bytes of a TCP header without options.
const TCP_HEADER: u16 = 20;
/// Bytes of an ICMP error before what it quotes, and bytes that it quotes beyond the IP header: RFC 792 asks
/// for these eight, RFC 4443 for "as much as possible", and every stack is content with them.
const ICMP_HEADER: u16 = 8;
const TTL: u8 = 64;
const ETHERTYPE_V4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_V6: u16 = 0x86dd_u16.to_be();
/// Word of [`Reply::words`] that the IP header begins at, and those that follow it.
const IP: usize = 4;
const AFTER_V4: usize = IP + IPV4 / 4;
const AFTER_V6: usize = IP + IPV6 / 4;

/// An answer: a whole frame.
///
/// Its IP header lies at a multiple of four, as the kernel has it: so two bytes come before the frame.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// [`Self::BEFORE`] bytes of nothing, then the frame.
    pub words: [u32; 30],
    /// Bytes of the frame.
    pub len: u32,
    /// Zero.
    pub pad: u32,
}

impl Reply {
    /// Bytes of [`Self::words`] before the frame.
    pub const BEFORE: usize = 2;
    /// Bytes of the longest frame: an ICMPv6 error about a fragment.
    pub const MAX: usize = ETH + IPV6 + ICMP_HEADER as usize + IPV6 + 8 + 8;
    /// Bytes of a frame with a TCP segment or an ICMP error, by family: what a program that wants a constant
    /// compares [`Self::len`] with.
    pub const RESET_V4: u32 = (ETH + IPV4) as u32 + TCP_HEADER as u32;
    /// See [`Self::RESET_V4`].
    pub const RESET_V6: u32 = (ETH + IPV6) as u32 + TCP_HEADER as u32;
    /// See [`Self::RESET_V4`].
    pub const ERROR_V4: u32 = (ETH + 2 * IPV4 + 8) as u32 + ICMP_HEADER as u32;
    /// See [`Self::RESET_V4`].
    pub const ERROR_V6: u32 = Self::MAX as u32 - 8;
    /// See [`Self::RESET_V4`]; about a fragment, whose own header comes first.
    pub const ERROR_FRAGMENT: u32 = Self::MAX as u32;

    /// Nothing yet.
    #[inline(always)]
    pub const fn new() -> Self {
        Self { words: [0; 30], len: 0, pad: 0 }
    }

    /// Where the frame begins.
    #[inline(always)]
    pub const fn start(&self) -> *const u8 {
        // SAFETY: two bytes into more than that.
        unsafe { self.words.as_ptr().cast::<u8>().add(Self::BEFORE) }
    }
}

impl Default for Reply {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    assert!(size_of::<Reply>() == 128);
    assert!(Reply::BEFORE + Reply::MAX == 120);
    assert!((Reply::BEFORE + ETH) / 4 == IP);
};

/// Why a packet does not reach anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Nobody listens.
    Port,
    /// Nobody is there.
    Host,
    /// It is not allowed.
    Prohibited,
}

impl Unreachable {
    /// The code: RFC 792 and RFC 1812 §5.2.7.1 for IPv4, RFC 4443 §3.1 for IPv6.
    #[inline(always)]
    const fn code(self, v4: bool) -> u8 {
        match (self, v4) {
            (Self::Port, true) => 3,
            (Self::Host, true) => 1,
            (Self::Prohibited, true) => 13,
            (Self::Port, false) => 4,
            (Self::Host, false) => 3,
            (Self::Prohibited, false) => 1,
        }
    }
}

/// Which of the two a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and ICMP.
    V4,
    /// IPv6 and ICMPv6.
    V6,
}

impl Family {
    /// That of a packet.
    #[inline(always)]
    pub const fn of(packet: &Packet) -> Self {
        if packet.tuple.dst.is_v4() { Self::V4 } else { Self::V6 }
    }
}

/// A reset that answers a TCP segment, as from a host without such a connection (RFC 9293 §3.5.2, group 1).
/// `false`: there is none.
#[inline(always)]
pub fn reset(out: &mut Reply, frame: &Frame<'_>, packet: &Packet) -> bool {
    // A reset is never answered: two hosts would send them to each other for ever.
    if packet.proto != TCP || packet.flags & tcp::RST != 0 || !is_host(&packet.tuple.src) {
        return false;
    }
    let segment = frame.after(packet.l4 as usize);
    let (Some(offset), Some(ack), Some(seq)) =
        (segment.at::<u8>(12), segment.at::<u32>(8), segment.at::<u32>(4))
    else {
        return false;
    };
    let header = (offset as usize >> 4) << 2;
    let before = packet.l4 as usize + header;
    let Some(payload) = (packet.len as usize + ETH).checked_sub(before) else { return false };
    if header < TCP_HEADER as usize {
        return false;
    }
    let (seq, ack, flags) = if packet.flags & tcp::ACK != 0 {
        (ack, 0, tcp::RST)
    } else {
        let syn = (packet.flags & tcp::SYN != 0) as u32;
        let fin = (packet.flags & tcp::FIN != 0) as u32;
        let end = u32::from_be(seq).wrapping_add(payload as u32).wrapping_add(syn + fin);
        (0, end.to_be(), tcp::RST | tcp::ACK)
    };
    let segment = [packet.tuple.ports.rotate_left(16), seq, ack, u32::from_ne_bytes([5 << 4, flags, 0, 0])];
    let (src, dst) = (&packet.tuple.dst, &packet.tuple.src);
    if dst.is_v4() {
        if !ethernet(out, frame, ETHERTYPE_V4) {
            return false;
        }
        let sum = ipv4(out, src, dst, TCP, TCP_HEADER);
        put_segment::<AFTER_V4>(out, &segment, sum);
        out.len = Reply::RESET_V4;
    } else {
        if !ethernet(out, frame, ETHERTYPE_V6) {
            return false;
        }
        let sum = ipv6(out, src, dst, TCP, TCP_HEADER);
        put_segment::<AFTER_V6>(out, &segment, sum);
        out.len = Reply::RESET_V6;
    }
    true
}

/// "Destination unreachable" (RFC 792; RFC 4443 §3.1) from `source` to whoever sent a packet. `false`: there is
/// none, because it would answer an error, or a fragment of IPv4 that is not the first.
#[inline(always)]
pub fn unreachable(
    out: &mut Reply,
    frame: &Frame<'_>,
    packet: &Packet,
    code: Unreachable,
    source: Addr16,
) -> bool {
    let v4 = source.is_v4();
    error(out, frame, packet, if v4 { 3 } else { 1 }, code.code(v4), 0, source)
}

/// "Fragmentation needed" with the MTU of the next hop (RFC 1191 §4), or "packet too big" (RFC 4443 §3.2). As
/// [`unreachable()`].
#[inline(always)]
pub fn too_big(out: &mut Reply, frame: &Frame<'_>, packet: &Packet, mtu: u16, source: Addr16) -> bool {
    // Both have it at the end of the header's second word.
    let mtu = (mtu as u32).to_be();
    if source.is_v4() {
        error(out, frame, packet, 3, 4, mtu, source)
    } else {
        error(out, frame, packet, 2, 0, mtu, source)
    }
}

/// The checksum field of an echo reply from that of its request: only the type differs (RFC 792: 8 and 0; RFC
/// 4443 §4: 128 and 129), for the pseudo-header's sum is the same with its addresses exchanged.
///
/// Of the two zeros it is never the positive one: a reply may be all zeros, and then only the other is its sum.
/// In any other message both are (RFC 1624 §3).
#[inline(always)]
pub const fn echo_csum(field: u16, family: Family) -> u16 {
    let (old, new) = match family {
        Family::V4 => (8, 0),
        Family::V6 => (128, 129),
    };
    let old = u16::from_ne_bytes([old, 0]) as u32;
    let new = u16::from_ne_bytes([new, 0]) as u32;
    let field = update(field, diff(old, new));
    if field == 0 { !0 } else { field }
}

/// Whether an address can be that of one host: not "any", broadcast or multicast.
#[inline(always)]
const fn is_host(addr: &Addr16) -> bool {
    let [first, ..] = addr.0[if addr.is_v4() { 3 } else { 0 }].to_ne_bytes();
    if addr.is_v4() {
        first >> 4 != 0xe && addr.0[3] != 0 && addr.0[3] != u32::MAX
    } else {
        first != 0xff && (addr.0[0] | addr.0[1] | addr.0[2] | addr.0[3]) != 0
    }
}

/// Errors are not answered with errors, nor are the old source quench and redirects.
#[inline(always)]
const fn is_error(packet: &Packet) -> bool {
    let others = match packet.proto {
        ICMP => packet.flags == 4 || packet.flags == 5,
        ICMP6 => packet.flags == 137,
        _ => false,
    };
    others || packet.is_error()
}

#[inline(always)]
fn error(
    out: &mut Reply,
    frame: &Frame<'_>,
    packet: &Packet,
    kind: u8,
    code: u8,
    rest: u32,
    source: Addr16,
) -> bool {
    let dst = &packet.tuple.src;
    let known = dst.is_v4() == source.is_v4() && is_host(dst) && is_host(&packet.tuple.dst);
    if !known || is_error(packet) {
        return false;
    }
    let first = u32::from_ne_bytes([kind, code, 0, 0]);
    if dst.is_v4() {
        const QUOTED: usize = IPV4 + 8;
        // Of a packet in parts the sender is told once (RFC 1122 §3.2.2).
        if packet.part == Packet::LATER
            || packet.l4 as usize != ETH + IPV4
            || !ethernet(out, frame, ETHERTYPE_V4)
        {
            return false;
        }
        // ICMP has no pseudo-header.
        ipv4(out, &source, dst, ICMP, ICMP_HEADER + QUOTED as u16);
        out.len = Reply::ERROR_V4;
        put_error::<AFTER_V4, { QUOTED / 4 }>(out, frame, first, rest, 0)
    } else {
        const QUOTED: usize = IPV6 + 8;
        // A stack that has to find the port behind a fragment's header wants to see it.
        const FRAGMENT: usize = QUOTED + 8;
        if !ethernet(out, frame, ETHERTYPE_V6) {
            return false;
        }
        if packet.has_fragment_header() {
            let sum = ipv6(out, &source, dst, ICMP6, ICMP_HEADER + FRAGMENT as u16);
            out.len = Reply::ERROR_FRAGMENT;
            return put_error::<AFTER_V6, { FRAGMENT / 4 }>(out, frame, first, rest, sum);
        }
        let sum = ipv6(out, &source, dst, ICMP6, ICMP_HEADER + QUOTED as u16);
        out.len = Reply::ERROR_V6;
        put_error::<AFTER_V6, { QUOTED / 4 }>(out, frame, first, rest, sum)
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
