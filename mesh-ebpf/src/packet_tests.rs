use proptest::prelude::*;

use super::*;
use crate::testing::{Build, addr, icmp, parse, tcp as segment, udp};

const V4: (&str, &str) = ("192.0.2.7:41000", "10.9.0.1:80");
const V6: (&str, &str) = ("[2001:db8::7]:41000", "[fd00::1]:80");

/// One of each kind.
fn samples() -> Vec<Build> {
    let mut all = vec![icmp("192.0.2.7", "10.9.0.1", 8), icmp("2001:db8::7", "fd00::1", 128)];
    for (src, dst) in [V4, V6] {
        all.push(segment(src, dst, tcp::SYN));
        all.push(segment(src, dst, tcp::ACK).with(&[7; 50]));
        all.push(udp(src, dst).with(b"question"));
    }
    all
}

#[test]
fn headers_are_read() {
    for build in samples() {
        let bytes = build.bytes();
        let packet = parse(&bytes).unwrap();
        let ports = if build.proto == ICMP || build.proto == ICMP6 {
            (NetPort::ANY, NetPort::ANY)
        } else {
            (NetPort::new(build.src.port()), NetPort::new(build.dst.port()))
        };
        let tuple = Tuple::new(build.src.ip().into(), ports.0, build.dst.ip().into(), ports.1);
        assert_eq!(packet.tuple, tuple);
        assert_eq!(packet.sent, tuple);
        assert_eq!((packet.proto, packet.flags), (build.proto, build.flags));
        assert_eq!(packet.l4 as usize, build.l4());
        assert_eq!(packet.len as usize, bytes.len() - ETH);
        assert_eq!(packet.whole != 0, build.src.is_ipv6());
        assert_eq!(packet.tuple.reversed().reversed(), packet.tuple);
        assert_eq!(packet.tuple.reversed().sport(), packet.tuple.dport());
    }
}

/// Some have timestamps, others, such as Windows', have none.
#[test]
fn each_segment_of_a_bundle_has_the_headers_of_the_first() {
    for (build, headers) in [
        (segment(V4.0, V4.1, tcp::ACK), 20 + 20),
        (Build { tcp_options: 3, ..segment(V4.0, V4.1, tcp::ACK) }, 20 + 32),
        (segment(V6.0, V6.1, tcp::ACK), 40 + 20),
        (udp(V4.0, V4.1), 20 + 8),
        (udp(V6.0, V6.1), 40 + 8),
    ] {
        let packet = build.with(&[7; 3000]).packet();
        assert_eq!(packet.segment(1000), headers + 1000);
        assert_eq!(packet.segment(0), headers + 3000);
    }
}

/// Nothing else is copied into the linear part for them.
#[test]
fn a_segment_is_read_alike_however_much_of_it_is_linear() {
    let with_options = Build { options: vec![1; 4], ..segment(V4.0, V4.1, tcp::SYN) };
    let fragment = Build { fragment: 0x2001, ..segment(V4.0, V4.1, tcp::ACK) };
    let in_parts = Build { fragment: 1, ..segment(V6.0, V6.1, tcp::ACK) };
    for build in samples().into_iter().chain([with_options, fragment, in_parts]) {
        let bytes = build.bytes();
        for linear in 0..=bytes.len() {
            let part = &bytes[..linear];
            if has_tcp_headers(&Frame::new(part)) {
                assert_eq!(build.proto, TCP);
                assert_eq!(parse(part), parse(&bytes), "{linear} bytes of {build:?}");
            }
        }
    }
    for build in samples() {
        assert_eq!(has_tcp_headers(&Frame::new(&build.bytes())), build.proto == TCP);
    }
}

/// Never misread: the node's kernel has them.
#[test]
fn options_between_headers_are_left_alone() {
    for options in [4, 40] {
        let build = Build { options: vec![1; options], ..segment(V4.0, V4.1, tcp::SYN) };
        assert_eq!(parse(&build.bytes()), Err(Skip::Other));
    }
    for extensions in [vec![(0, 6)], vec![(43, 22), (60, 2046)]] {
        let build = Build { extensions, ..udp(V6.0, V6.1) };
        assert_eq!(parse(&build.bytes()), Err(Skip::Other));
    }
}

#[test]
fn the_flag_against_fragmentation_is_seen() {
    assert!(Build { fragment: 0x4000, ..udp(V4.0, V4.1) }.packet().whole != 0);
}

#[test]
fn only_a_plain_syn_begins_a_flow() {
    for flags in 0..=u8::MAX {
        let begins = segment(V4.0, V4.1, flags).packet().is_syn();
        assert_eq!(begins, flags & 0x16 == 2, "{flags:x}");
    }
    assert!(icmp("192.0.2.7", "10.9.0.1", 8).packet().is_ping());
    assert!(icmp("2001:db8::7", "fd00::1", 128).packet().is_ping());
    assert!(!icmp("192.0.2.7", "10.9.0.1", 128).packet().is_ping());
    assert!(!icmp("2001:db8::7", "fd00::1", 8).packet().is_ping());
}

#[test]
fn fragments_are_known_as_such() {
    let part = |build: Build| {
        let packet = build.packet();
        let ports = packet.tuple.ports != 0;
        assert_eq!(ports, packet.part != Packet::LATER, "only the first has ports");
        packet.part
    };
    // First, middle and last.
    for (fragment, wanted) in [(0x2000, Packet::FIRST), (0x2001, Packet::LATER), (0x0001, Packet::LATER)] {
        assert_eq!(part(Build { fragment, ..udp(V4.0, V4.1) }), wanted, "{fragment:x}");
    }
    for (fragment, wanted) in [(0x0001, Packet::FIRST), (0x0009, Packet::LATER), (0x0008, Packet::LATER)] {
        assert_eq!(part(Build { fragment, ..udp(V6.0, V6.1) }), wanted, "{fragment:x}");
    }
}

/// What lies after a frame's end has no influence, at whichever byte it ends.
#[test]
fn nothing_beyond_the_end_counts() {
    for build in samples() {
        let bytes = build.bytes();
        let headers = build.l4() + if build.proto == TCP { 20 } else { 8 };
        for len in 0..=bytes.len() {
            let mut other = bytes.clone();
            other[len..].fill(0xff);
            let frame = Frame::new(&bytes[..len]);
            let read = Packet::parse(&frame);
            assert_eq!(read, Packet::parse(&Frame::new(&other[..len])));
            assert_eq!(read.is_ok(), len >= headers, "{len} of {build:?}");
            assert!(read.is_ok() || read == Err(Skip::Malformed));
        }
    }
}

#[test]
fn what_contradicts_itself_is_malformed() {
    let v4 = |at: usize, byte: u8| {
        let mut bytes = segment(V4.0, V4.1, tcp::SYN).bytes();
        bytes[at] = byte;
        parse(&bytes)
    };
    // Versions, header lengths; total lengths that leave no room for what is there.
    for byte in [0x05, 0x35, 0x55, 0x65, 0xf5, 0x40, 0x44] {
        assert_eq!(v4(14, byte), Err(Skip::Malformed), "{byte:x}");
    }
    for len in [1, 19, 20, 39] {
        assert_eq!(v4(17, len), Err(Skip::Malformed), "{len}");
    }
    assert!(v4(17, 40).is_ok());
    let v6 = |at: usize, new: [u8; 2]| {
        let mut bytes = segment(V6.0, V6.1, tcp::SYN).bytes();
        bytes[at..at + 2].copy_from_slice(&new);
        parse(&bytes)
    };
    for byte in [0x00, 0x40, 0x70] {
        assert_eq!(v6(14, [byte, 0]), Err(Skip::Malformed), "{byte:x}");
    }
    for len in [[0, 1], [0, 19], [0xff, 0xff], [0xff, 0xd8]] {
        assert_eq!(v6(18, len), Err(Skip::Malformed), "{len:?}");
    }
}

/// The kernel's bundles of segments have no length when it is beyond 16 bits.
#[test]
fn a_bundle_without_a_length_is_long() {
    let mut v4 = segment(V4.0, V4.1, tcp::ACK).bytes();
    v4[16..18].fill(0);
    let mut v6 = segment(V6.0, V6.1, tcp::ACK).bytes();
    v6[18..20].fill(0);
    let mut datagram = udp(V6.0, V6.1).bytes();
    datagram[18..20].fill(0);
    assert_eq!(parse(&v4).unwrap().len, u16::MAX);
    assert_eq!(parse(&v6).unwrap().len, u16::MAX);
    assert_eq!(parse(&datagram), Err(Skip::Malformed));
}

/// Of IPv4 each protocol counts its packets by itself (RFC 791 §3.2); of IPv6 all do together (RFC 8200 §4.5).
#[test]
fn fragments_belong_to_packets_of_one_protocol() {
    for ((src, dst), fragment) in [(V4, 0x2000), (V6, 1)] {
        let id = |build: Build| Build { fragment, ..build }.packet().id;
        assert_eq!(id(segment(src, dst, tcp::ACK)) == id(udp(src, dst)), src == V6.0);
        assert_eq!(id(udp(src, dst)), id(udp(src, dst)));
    }
}

/// What an ICMP error is about, if it says.
fn quote(error: &Build) -> Option<(Tuple, u8)> {
    let bytes = error.bytes();
    let mut packet = parse(&bytes).unwrap();
    assert!(packet.is_error());
    packet.quote(&Frame::new(&bytes)).then_some((packet.quoted, packet.quoted_proto))
}

#[test]
fn an_error_is_about_the_packet_that_it_quotes() {
    for ((src, dst), kind) in [(V4, 3), (V6, 1)] {
        let host = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().ip().to_string();
        for about in [udp(src, dst), segment(src, dst, tcp::ACK)] {
            let quoted = about.bytes()[ETH..].to_vec();
            let error = icmp(&host(dst), &host(src), kind);
            assert_eq!(quote(&error.clone().with(&quoted)), Some((about.packet().tuple, about.proto)));
            // The ports are needed, and no more.
            let ports = about.l4() - ETH + 4;
            assert!(quote(&error.clone().with(&quoted[..ports])).is_some());
            assert_eq!(quote(&error.clone().with(&quoted[..ports - 1])), None);
            // In a fragment of its own it would begin elsewhere.
            if src == V6.0 {
                assert_eq!(quote(&Build { fragment: 6, ..error.with(&quoted) }), None);
            }
        }
    }
    let mapped = udp("[::ffff:192.0.2.7]:41000", "[::ffff:10.9.0.1]:80").bytes();
    assert_eq!(quote(&icmp("fd00::1", "2001:db8::7", 1).with(&mapped[ETH..])), None);
}

/// `::ffff:10.9.0.1` in an IPv6 header is not 10.9.0.1.
#[test]
fn mapped_addresses_are_not_taken_for_others() {
    for (src, dst) in [("[::ffff:192.0.2.7]:1", V6.1), (V6.0, "[::ffff:10.9.0.1]:80")] {
        assert_eq!(parse(&udp(src, dst).bytes()), Err(Skip::Malformed));
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut arp = udp(V4.0, V4.1).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(parse(&arp), Err(Skip::Other));
    // SCTP; the other family's ICMP; a chain that is too long.
    for proto in [132, ICMP6] {
        let mut bytes = udp(V4.0, V4.1).bytes();
        bytes[23] = proto;
        assert_eq!(parse(&bytes), Err(Skip::Other));
    }
    for proto in [132, ICMP] {
        let mut bytes = udp(V6.0, V6.1).bytes();
        bytes[20] = proto;
        assert_eq!(parse(&bytes), Err(Skip::Other));
        // Behind a fragment header, too.
        let mut bytes = Build { fragment: 1, ..udp(V6.0, V6.1) }.bytes();
        bytes[54] = proto;
        assert_eq!(parse(&bytes), Err(Skip::Other));
    }
    let long = Build { extensions: vec![(0, 6), (60, 6), (43, 6)], ..udp(V6.0, V6.1) };
    assert_eq!(parse(&long.bytes()), Err(Skip::Other));
    assert!(addr("fd00::1") != addr("::ffff:10.0.0.1"));
}

proptest! {
    #[test]
    fn anything_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3_u8) {
        let mut bytes = bytes;
        if bytes.len() > 20 && kind > 0 {
            bytes[12..14].copy_from_slice(if kind == 1 { &[8, 0] } else { &[0x86, 0xdd] });
            bytes[14] = if kind == 1 { 0x40 | bytes[14] & 7 } else { 0x60 };
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn a_damaged_packet_can_be_read(which in 0..12_usize, at in 0..120_usize, byte in any::<u8>(), cut in 0..300_usize) {
        let all = samples();
        let mut bytes = all[which % all.len()].bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        if let Ok(packet) = parse(&bytes) {
            // A later fragment has no transport header.
            let header = if packet.part == Packet::LATER { 0 } else { 8 };
            prop_assert!(packet.l4 as usize + header <= bytes.len());
            prop_assert!(packet.l4 as usize + header <= packet.len as usize + ETH);
        }
    }
}
