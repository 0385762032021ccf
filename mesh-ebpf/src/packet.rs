//! What a program must know of a packet, and how it is read from a frame.

use crate::abi::{Addr16, Frontend, ICMP, ICMP6, NO_BACKEND, NetPort, TCP, UDP};
use crate::flow::Flow;
use crate::frame::Frame;
use crate::verdict::Hop;

/// Bytes of an Ethernet header.
pub const ETH: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4: usize = 20;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;
/// Where an ICMP error quotes the packet that it is about: after its header and 8 bytes of its own.
const QUOTE_V4: usize = ETH + IPV4 + 8;
const QUOTE_V6: usize = ETH + IPV6 + 8;
const ETHERTYPE_V4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_V6: u16 = 0x86dd_u16.to_be();
/// Flags of RFC 791 §3.1, and that of RFC 8200 §4.5.
const MORE_V4: u16 = 0x2000;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_V6: u16 = 1;
/// Bytes of IPv6's fragment header.
const FRAGMENT: usize = 8;
const FRAGMENT_HEADER: u8 = 44;

/// Who speaks to whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The sender.
    pub src: Addr16,
    /// The receiver.
    pub dst: Addr16,
    /// Source and destination port, as the word that they are at the beginning of a TCP or UDP header.
    pub ports: u32,
}

impl Tuple {
    /// Nobody's.
    pub const NONE: Self = Self { src: Addr16::ANY_V6, dst: Addr16::ANY_V6, ports: 0 };

    /// From its parts.
    #[inline(always)]
    pub const fn new(src: Addr16, sport: NetPort, dst: Addr16, dport: NetPort) -> Self {
        Self { src, dst, ports: Self::join(sport, dport) }
    }

    /// Both ports as one word.
    #[inline(always)]
    pub const fn join(sport: NetPort, dport: NetPort) -> u32 {
        if cfg!(target_endian = "little") {
            sport.0 as u32 | (dport.0 as u32) << 16
        } else {
            (sport.0 as u32) << 16 | dport.0 as u32
        }
    }

    /// The sender's port.
    #[inline(always)]
    pub const fn sport(&self) -> NetPort {
        if cfg!(target_endian = "little") {
            NetPort(self.ports as u16)
        } else {
            NetPort((self.ports >> 16) as u16)
        }
    }

    /// The receiver's port.
    #[inline(always)]
    pub const fn dport(&self) -> NetPort {
        if cfg!(target_endian = "little") {
            NetPort((self.ports >> 16) as u16)
        } else {
            NetPort(self.ports as u16)
        }
    }

    /// The other direction.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, ports: self.ports.rotate_left(16) }
    }
}

/// Flags of a TCP header (RFC 9293 §3.1), its byte 13.
pub mod tcp {
    /// The sender has no more to say.
    pub const FIN: u8 = 0x01;
    /// The flow begins.
    pub const SYN: u8 = 0x02;
    /// The flow is broken off.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// A parsed packet, and what becomes of it.
///
/// All that is large is in here, because this is not kept on the stack, which has 512 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses as it came; for TCP and UDP also the ports, otherwise 0.
    pub tuple: Tuple,
    /// The same as it is sent on, once [`crate::verdict::Verdict::SEND`] says that it is.
    pub sent: Tuple,
    /// Where a flow is written down before it is remembered.
    pub draft: Flow,
    /// Beside a drafted reply flow: the client's own address, where the backend does not know it.
    pub origin: Flow,
    /// What a new flow is to.
    pub frontend: Frontend,
    /// Where it goes next, if it is sent on.
    pub hop: Hop,
    /// Of an ICMP error: the packet that it is about, as [`Self::quote`] found it.
    pub quoted: Tuple,
    /// The same as it is sent on.
    pub quoted_sent: Tuple,
    /// IP protocol: TCP, UDP, ICMP or ICMPv6; others are not parsed.
    pub proto: u8,
    /// TCP flags; the type of an ICMP message.
    pub flags: u8,
    /// Whether it may not be fragmented: IPv4's flag, always with IPv6. Not a bool: it lies in memory of the kernel's.
    pub whole: u8,
    /// What is told of it to those who watch, an [`crate::verdict::Event`], or [`Self::NOTHING`].
    pub event: u8,
    /// Where the transport header begins, from the start of the frame.
    pub l4: u16,
    /// Bytes from the IP header to the end; the greatest number if there are more.
    pub len: u16,
    /// IP protocol of the packet that an ICMP error is about.
    pub quoted_proto: u8,
    /// [`Self::WHOLE`], [`Self::FIRST`] or [`Self::LATER`].
    pub part: u8,
    /// Bytes of the transport header, with TCP's options.
    pub header: u8,
    /// What all fragments of a packet have in common.
    pub id: u32,
    /// The device that it came in by.
    pub device: u32,
    /// When it came, in ticks of [`crate::flow::TICK`].
    pub now: u32,
    /// Another task for its flow: this one has gone. [`NO_BACKEND`]: any.
    pub except: u32,
    /// 1: there is no further task to send it to.
    pub last: u32,
    /// Of a TCP segment: its sequence number, as it is on the wire.
    pub seq: u32,
}

/// Why a frame is not parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Neither IPv4 nor IPv6, options between the headers, or a protocol that is not balanced: nothing of ours. The
    /// node's kernel has it.
    Other,
    /// Headers that end beyond the frame, or that contradict themselves.
    Malformed,
}

impl Packet {
    /// No event: it is of a flow that is known, or of none of ours.
    pub const NOTHING: u8 = u8::MAX;
    /// None.
    pub const EMPTY: Self = Self {
        tuple: Tuple::NONE,
        sent: Tuple::NONE,
        draft: Flow::EMPTY,
        origin: Flow::EMPTY,
        frontend: Frontend::NONE,
        hop: Hop::stack(),
        quoted: Tuple::NONE,
        quoted_sent: Tuple::NONE,
        proto: 0,
        flags: 0,
        whole: 0,
        event: Self::NOTHING,
        l4: 0,
        len: 0,
        quoted_proto: 0,
        part: Self::WHOLE,
        header: 0,
        id: 0,
        device: 0,
        now: 0,
        except: NO_BACKEND,
        last: 0,
        seq: 0,
    };
    /// No fragment.
    pub const WHOLE: u8 = 0;
    /// The first fragment, which has the transport header.
    pub const FIRST: u8 = 1;
    /// Another fragment: addresses and protocol are all that is known.
    pub const LATER: u8 = 2;

    /// Reads the headers of a frame.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, Skip> {
        let mut packet = Self::EMPTY;
        packet.read(frame)?;
        Ok(packet)
    }

    /// Reads the headers of a frame into a packet that was another one before.
    #[inline(always)]
    pub fn read(&mut self, frame: &Frame<'_>) -> Result<(), Skip> {
        match frame.at::<u16>(12).ok_or(Skip::Malformed)? {
            ETHERTYPE_V4 => self.v4(frame),
            ETHERTYPE_V6 => self.v6(frame),
            _ => Err(Skip::Other),
        }
    }

    /// An ICMP message that is about a packet which its receiver sent.
    #[inline(always)]
    pub const fn is_error(&self) -> bool {
        match self.proto {
            // Unreachable, time exceeded, parameter problem (RFC 792).
            ICMP => self.flags == 3 || self.flags == 11 || self.flags == 12,
            // All below 128 (RFC 4443 §2.1).
            ICMP6 => self.flags < 128,
            _ => false,
        }
    }

    /// Whether IPv6's fragment header comes before that of the transport: also in a packet that was never cut
    /// (RFC 6946).
    #[inline(always)]
    pub const fn has_fragment_header(&self) -> bool {
        self.l4 as usize == ETH + IPV6 + FRAGMENT
    }

    /// Bytes of an IP packet that it is, or that each segment of it is going to be: with `payload` bytes, if it is a bundle
    /// of several (`gso_size`), otherwise zero.
    #[inline(always)]
    pub const fn segment(&self, payload: u32) -> u32 {
        if payload == 0 {
            self.len as u32
        } else {
            self.l4 as u32 - ETH as u32 + self.header as u32 + payload
        }
    }

    /// Reads what an ICMP error is about. False: nothing that is balanced, or too little of it.
    #[inline(always)]
    pub fn quote(&mut self, frame: &Frame<'_>) -> bool {
        // Nobody fragments one (RFC 4443 §2.4 has it fit).
        if self.has_fragment_header() {
            return false;
        }
        let (addresses, proto, ports) = if self.proto == ICMP {
            let Some(ip) = frame.at::<[u32; 5]>(QUOTE_V4) else { return false };
            let Some(ports) = frame.at::<u32>(QUOTE_V4 + IPV4) else { return false };
            if ip[0].to_ne_bytes()[0] != 0x45 || u32::from_be(ip[1]) & 0x1fff != 0 {
                return false;
            }
            let addresses = (Addr16::from_word(ip[3]), Addr16::from_word(ip[4]));
            (addresses, ip[2].to_ne_bytes()[1], ports)
        } else {
            let Some(head) = frame.at::<[u32; 2]>(QUOTE_V6) else { return false };
            let Some(src) = frame.at::<[u32; 4]>(QUOTE_V6 + 8) else { return false };
            let Some(dst) = frame.at::<[u32; 4]>(QUOTE_V6 + 24) else { return false };
            let Some(ports) = frame.at::<u32>(QUOTE_V6 + IPV6) else { return false };
            let (src, dst) = (Addr16(src), Addr16(dst));
            if src.is_v4() || dst.is_v4() {
                return false;
            }
            ((src, dst), head[1].to_ne_bytes()[2], ports)
        };
        if proto != TCP && proto != UDP {
            return false;
        }
        self.quoted = Tuple { src: addresses.0, dst: addresses.1, ports };
        self.quoted_sent = self.quoted;
        self.quoted_proto = proto;
        true
    }

    /// A TCP segment that begins a flow.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        self.proto == TCP && self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
    }

    /// What a flow begins with: nobody holds it against another task that it knows nothing of the flow.
    #[inline(always)]
    pub const fn may_begin(&self) -> bool {
        self.proto == UDP || self.is_syn()
    }

    /// A TCP segment that announces how large segments may be: of either side the first.
    #[inline(always)]
    pub const fn announces(&self) -> bool {
        self.proto == TCP && self.flags & (tcp::SYN | tcp::RST) == tcp::SYN && self.part == Self::WHOLE
    }

    /// A TCP segment after which its sender says no more.
    #[inline(always)]
    pub const fn ends(&self) -> bool {
        self.proto == TCP && self.flags & (tcp::FIN | tcp::RST) != 0
    }

    /// A TCP segment that begins a connection, takes one up or breaks one off.
    #[inline(always)]
    pub const fn is_sign(&self) -> bool {
        self.proto == TCP && self.flags & (tcp::SYN | tcp::RST) != 0
    }

    /// A TCP segment that takes a connection up.
    #[inline(always)]
    pub const fn takes_up(&self) -> bool {
        self.proto == TCP && self.flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN | tcp::ACK
    }

    /// A reset that answers a SYN: it has sequence number 0 and acknowledges something (RFC 9293 §3.10.7.1). One that
    /// breaks off a connection goes on with that one's numbers.
    #[inline(always)]
    pub const fn turns_down(&self) -> bool {
        self.proto == TCP && self.flags & (tcp::ACK | tcp::RST) == tcp::ACK | tcp::RST && self.seq == 0
    }

    /// An ICMP error that says that nobody is there, or that it is not allowed.
    #[inline(always)]
    pub const fn is_unreachable(&self) -> bool {
        (self.proto == ICMP && self.flags == 3) || (self.proto == ICMP6 && self.flags == 1)
    }

    /// The question of `ping`: echo request (RFC 792, RFC 4443 §4.1).
    #[inline(always)]
    pub const fn is_ping(&self) -> bool {
        (self.proto == ICMP && self.flags == 8) || (self.proto == ICMP6 && self.flags == 128)
    }

    /// The first packet of a flow, as far as it matters to where that goes.
    pub const fn opening(tuple: Tuple, proto: u8) -> Self {
        let flags = if proto == TCP { tcp::SYN } else { 0 };
        Self { tuple, sent: tuple, proto, flags, whole: 1, ..Self::EMPTY }
    }

    #[inline(always)]
    fn v4(&mut self, frame: &Frame<'_>) -> Result<(), Skip> {
        // Five words: version … length, id … fragment, ttl … checksum, source, destination.
        let [first, _, third, src, dst] = frame.at::<[u32; 5]>(ETH).ok_or(Skip::Malformed)?;
        let [version, _, len_high, len_low] = first.to_ne_bytes();
        let len = u16::from_be_bytes([len_high, len_low]);
        if version >> 4 != 4 || version & 0xf < 5 || (len != 0 && (len as usize) < IPV4) {
            return Err(Skip::Malformed);
        }
        if version & 0xf != 5 {
            return Err(Skip::Other);
        }
        let [id, fragment] = frame.at::<[u16; 2]>(ETH + 4).ok_or(Skip::Malformed)?;
        let fragment = u16::from_be(fragment);
        self.part = part(fragment & 0x1fff, fragment & MORE_V4 != 0);
        let addresses = Tuple { src: Addr16::from_word(src), dst: Addr16::from_word(dst), ports: 0 };
        let proto = third.to_ne_bytes()[1];
        // Each protocol counts by itself.
        self.id = (proto as u32) << 16 | id as u32;
        if proto == ICMP6 {
            return Err(Skip::Other);
        }
        self.transport(frame, addresses, proto, ETH + IPV4, len, fragment & DONT_FRAGMENT != 0)
    }

    #[inline(always)]
    fn v6(&mut self, frame: &Frame<'_>) -> Result<(), Skip> {
        let head = frame.at::<[u32; 2]>(ETH).ok_or(Skip::Malformed)?;
        let [version, ..] = head[0].to_ne_bytes();
        let [len_high, len_low, proto, _] = head[1].to_ne_bytes();
        let payload = u16::from_be_bytes([len_high, len_low]);
        if version >> 4 != 6 || payload > u16::MAX - IPV6 as u16 {
            return Err(Skip::Malformed);
        }
        let src = frame.at::<[u32; 4]>(ETH + 8).ok_or(Skip::Malformed)?;
        let dst = frame.at::<[u32; 4]>(ETH + 24).ok_or(Skip::Malformed)?;
        if proto == ICMP {
            return Err(Skip::Other);
        }
        let addresses = Tuple { src: Addr16(src), dst: Addr16(dst), ports: 0 };
        // They would be taken for IPv4; nobody may send them (draft-itojun-v6ops-v4mapped-harmful).
        if addresses.src.is_v4() || addresses.dst.is_v4() {
            return Err(Skip::Malformed);
        }
        let len = if payload == 0 { 0 } else { payload + IPV6 as u16 };
        self.part = Self::WHOLE;
        if proto == FRAGMENT_HEADER {
            let [head, id] = frame.at::<[u32; 2]>(ETH + IPV6).ok_or(Skip::Malformed)?;
            let [proto, _, high, low] = head.to_ne_bytes();
            if proto == ICMP {
                return Err(Skip::Other);
            }
            let fragment = u16::from_be_bytes([high, low]);
            self.part = part(fragment & !7, fragment & MORE_V6 != 0);
            self.id = id;
            // Also one of a packet that was never cut (RFC 6946): nothing is to be remembered of it.
            return self.transport(frame, addresses, proto, ETH + IPV6 + FRAGMENT, len, true);
        }
        self.transport(frame, addresses, proto, ETH + IPV6, len, true)
    }

    #[inline(always)]
    fn transport(
        &mut self,
        frame: &Frame<'_>,
        addresses: Tuple,
        proto: u8,
        l4: usize,
        len: u16,
        whole: bool,
    ) -> Result<(), Skip> {
        let packet = self;
        packet.tuple = addresses;
        packet.sent = addresses;
        (packet.proto, packet.flags) = (proto, 0);
        packet.whole = whole as u8;
        packet.event = Self::NOTHING;
        (packet.l4, packet.len) = (l4 as u16, len);
        packet.header = 0;
        if packet.part == Self::LATER {
            return if len as usize + ETH >= l4 { Ok(()) } else { Err(Skip::Malformed) };
        }
        let header = match proto {
            TCP => {
                // At once: the verifier forgets about one pointer what it learned of another.
                let words = frame.at::<[u32; 5]>(l4).ok_or(Skip::Malformed)?;
                packet.tuple.ports = words[0];
                let [offset, flags, ..] = words[3].to_ne_bytes();
                packet.flags = flags;
                packet.header = offset >> 4 << 2;
                packet.seq = words[1];
                // The kernel's own bundles of segments may be longer than the field can say ("BIG TCP").
                if len == 0 {
                    packet.len = u16::MAX;
                }
                20
            }
            UDP => {
                packet.tuple.ports = frame.at::<[u32; 2]>(l4).ok_or(Skip::Malformed)?[0];
                packet.header = 8;
                8
            }
            ICMP | ICMP6 => {
                packet.flags = frame.at::<[u32; 2]>(l4).ok_or(Skip::Malformed)?[0].to_ne_bytes()[0];
                8
            }
            _ => return Err(Skip::Other),
        };
        // What comes after the packet in its frame is padding, and no header.
        if packet.len as usize + ETH < l4 + header {
            return Err(Skip::Malformed);
        }
        packet.sent.ports = packet.tuple.ports;
        Ok(())
    }
}

/// Whether all that is read of a TCP segment is there, as it is of large ones whose payload lies elsewhere.
#[inline(always)]
pub fn has_tcp_headers(frame: &Frame<'_>) -> bool {
    const TCP_HEADER: usize = 20;
    match frame.at::<u16>(12) {
        Some(ETHERTYPE_V4) => {
            frame.at::<[u8; TCP_HEADER]>(ETH + IPV4).is_some() && frame.at::<u8>(ETH + 9) == Some(TCP)
        }
        Some(ETHERTYPE_V6) => {
            frame.at::<[u8; TCP_HEADER]>(ETH + IPV6).is_some() && frame.at::<u8>(ETH + 6) == Some(TCP)
        }
        _ => false,
    }
}

/// Which part of a packet a fragment is.
#[inline(always)]
const fn part(offset: u16, more: bool) -> u8 {
    match (offset, more) {
        (0, false) => Packet::WHOLE,
        (0, true) => Packet::FIRST,
        _ => Packet::LATER,
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
