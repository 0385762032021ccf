//! Answers, read back by other code than that which wrote them.

use std::net::IpAddr;

use super::*;
use crate::abi::UDP;
use crate::testing::{Build, FROM_MAC, TO_MAC, addr, checksum, checksum_of, icmp, tcp as segment, udp};

const V4: (&str, &str) = ("192.0.2.7:41000", "10.9.0.1:80");
const V6: (&str, &str) = ("[2001:db8::7]:41000", "[fd00::1]:80");

/// Gives a frame to a function, and its answer's bytes back, if there is one.
fn answer(bytes: &[u8], give: impl FnOnce(&mut Reply, &Frame<'_>, &Packet) -> bool) -> Option<Vec<u8>> {
    let frame = Frame::new(bytes);
    let packet = Packet::parse(&frame).unwrap();
    let mut out = Reply { words: [0xdead_beef; 30], ..Reply::new() };
    give(&mut out, &frame, &packet).then(|| {
        let all: Vec<u8> = out.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        all[Reply::BEFORE..Reply::BEFORE + out.len as usize].to_vec()
    })
}

/// What is true of each answer to `from`. Returns its transport header and what follows.
fn check<'a>(from: &Build, frame: &'a [u8], proto: u8) -> &'a [u8] {
    assert_eq!(frame[..6], FROM_MAC);
    assert_eq!(frame[6..12], TO_MAC);
    let (src, dst): (IpAddr, IpAddr) = (from.dst.ip(), from.src.ip());
    let transport = if src.is_ipv4() {
        assert_eq!(frame[12..16], [8, 0, 0x45, 0]);
        assert_eq!(u16::from_be_bytes([frame[16], frame[17]]) as usize, frame.len() - 14);
        assert_eq!(frame[18..24], [0, 0, 0x40, 0, 64, proto]);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()), src);
        assert_eq!(IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap()), dst);
        &frame[34..]
    } else {
        assert_eq!(frame[12..18], [0x86, 0xdd, 0x60, 0, 0, 0]);
        assert_eq!(u16::from_be_bytes([frame[18], frame[19]]) as usize, frame.len() - 54);
        assert_eq!(frame[20..22], [proto, 64]);
        assert_eq!(IpAddr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap()), src);
        assert_eq!(IpAddr::from(<[u8; 16]>::try_from(&frame[38..54]).unwrap()), dst);
        &frame[54..]
    };
    assert_eq!(checksum_of(&src, &dst, proto, transport), 0);
    transport
}

#[test]
fn a_reset_has_the_numbers_of_the_rfc() {
    let (syn, fin, ack) = (tcp::SYN, tcp::FIN, tcp::ACK);
    // Flags, bytes of payload; sequence and acknowledgement number, flags.
    let cases = [
        (syn, 0, 0, 0x0102_0305, tcp::RST | ack),
        (syn, 7, 0, 0x0102_030c, tcp::RST | ack),
        (fin, 1, 0, 0x0102_0306, tcp::RST | ack),
        (0, 100, 0, 0x0102_0368, tcp::RST | ack),
        (syn | ack, 0, 0x0506_0708, 0, tcp::RST),
        (ack, 1000, 0x0506_0708, 0, tcp::RST),
        (ack | fin, 0, 0x0506_0708, 0, tcp::RST),
    ];
    for (flags, payload, seq, acknowledged, wanted) in cases {
        for (src, dst) in [V4, V6] {
            for tcp_options in [0, 5, 10] {
                let build = Build { tcp_options, ..segment(src, dst, flags).with(&vec![7; payload]) };
                let frame = answer(&build.bytes(), reset).unwrap();
                let transport = check(&build, &frame, TCP);
                assert_eq!(transport.len(), 20);
                assert_eq!(transport[..4], [0, 80, 0xa0, 0x28]);
                assert_eq!(transport[4..8], u32::to_be_bytes(seq), "{flags:x}");
                assert_eq!(transport[8..12], u32::to_be_bytes(acknowledged), "{flags:x}");
                assert_eq!(transport[12..16], [0x50, wanted, 0, 0]);
                assert_eq!(transport[18..], [0, 0]);
            }
        }
    }
}

#[test]
fn a_reset_counts_no_padding() {
    for (src, dst) in [V4, V6] {
        let build = segment(src, dst, tcp::SYN);
        let mut bytes = build.bytes();
        // What Ethernet adds to short frames.
        bytes.extend([0; 8]);
        let frame = answer(&bytes, reset).unwrap();
        assert_eq!(check(&build, &frame, TCP)[8..12], [1, 2, 3, 5]);
    }
}

#[test]
fn sequence_numbers_wrap() {
    let build = Build { seq: u32::MAX, ..segment(V4.0, V4.1, tcp::SYN).with(b"abc") };
    let frame = answer(&build.bytes(), reset).unwrap();
    assert_eq!(check(&build, &frame, TCP)[8..12], [0, 0, 0, 3]);
}

#[test]
fn not_all_is_reset() {
    for flags in [tcp::RST, tcp::RST | tcp::ACK, tcp::RST | tcp::SYN] {
        assert_eq!(answer(&segment(V4.0, V4.1, flags).bytes(), reset), None);
    }
    assert_eq!(answer(&udp(V4.0, V4.1).bytes(), reset), None);
    // A header that is shorter than a header, and one that is longer than the segment.
    for offset in [0x40, 0x60] {
        let mut bytes = segment(V4.0, V4.1, tcp::SYN).bytes();
        bytes[46] = offset;
        assert_eq!(answer(&bytes, reset), None);
    }
}

#[test]
fn errors_have_the_codes_of_their_family() {
    use Unreachable::{Host, Port, Prohibited};
    let v4 = [(Port, [3, 3]), (Host, [3, 1]), (Prohibited, [3, 13])];
    let v6 = [(Port, [1, 4]), (Host, [1, 3]), (Prohibited, [1, 1])];
    for (build, cases) in [(udp(V4.0, V4.1), v4), (udp(V6.0, V6.1), v6)] {
        let build = build.with(b"something that is quoted only in part");
        let bytes = build.bytes();
        for (code, wanted) in cases {
            let source = build.packet().tuple.dst;
            let give = |out: &mut Reply, frame: &Frame<'_>, packet: &Packet| {
                unreachable(out, frame, packet, code, source)
            };
            let frame = answer(&bytes, give).unwrap();
            let message = check(&build, &frame, if build.src.is_ipv4() { ICMP } else { ICMP6 });
            assert_eq!(message[..2], wanted);
            assert_eq!(message[4..8], [0; 4]);
            assert_eq!(message[8..], bytes[14..build.l4() + 8]);
        }
    }
}

#[test]
fn too_big_says_what_would_fit() {
    for build in [segment(V4.0, V4.1, tcp::ACK).with(&[1; 1400]), udp(V6.0, V6.1).with(&[2; 1400])] {
        let bytes = build.bytes();
        let source = build.packet().tuple.dst;
        let frame = answer(&bytes, |out, frame, packet| too_big(out, frame, packet, 1450, source)).unwrap();
        let v4 = build.src.is_ipv4();
        let message = check(&build, &frame, if v4 { ICMP } else { ICMP6 });
        assert_eq!(message[..2], if v4 { [3, 4] } else { [2, 0] });
        assert_eq!(message[4..8], [0, 0, 5, 170]);
        assert_eq!(message[8..], bytes[14..build.l4() + 8]);
    }
}

#[test]
fn an_error_may_be_from_somebody_else() {
    let build = udp(V4.0, V4.1);
    let source = addr("203.0.113.1");
    let frame = answer(&build.bytes(), |out, frame, packet| {
        unreachable(out, frame, packet, Unreachable::Host, source)
    });
    let from = Build { dst: "203.0.113.1:0".parse().unwrap(), ..build };
    check(&from, &frame.unwrap(), ICMP);
}

/// Whether a packet is answered with an error.
fn is_answered(build: &Build) -> bool {
    let bytes = build.bytes();
    let source = build.packet().tuple.dst;
    let unreachable = answer(&bytes, |o, f, p| unreachable(o, f, p, Unreachable::Port, source)).is_some();
    assert_eq!(unreachable, answer(&bytes, |o, f, p| too_big(o, f, p, 1400, source)).is_some());
    unreachable
}

#[test]
fn errors_are_no_answer_to_errors() {
    for kind in 0..=u8::MAX {
        let v4 = icmp("192.0.2.7", "10.9.0.1", kind);
        assert_eq!(is_answered(&v4), ![3, 4, 5, 11, 12].contains(&kind), "{kind}");
        let v6 = icmp("2001:db8::7", "fd00::1", kind);
        assert_eq!(is_answered(&v6), kind >= 128 && kind != 137, "{kind}");
    }
}

/// Whose sender has to find the port behind that header, in one fragment (RFC 6946) or several.
#[test]
fn an_error_quotes_the_ports_behind_a_fragment_header() {
    for fragment in [1, 6] {
        // Of the six the lowest three are reserved, or say that there are others.
        let build = Build { fragment, ..udp(V6.0, V6.1).with(&[0; 40]) };
        let bytes = build.bytes();
        let source = build.packet().tuple.dst;
        let frame = answer(&bytes, |out, frame, packet| too_big(out, frame, packet, 1400, source)).unwrap();
        assert_eq!(check(&build, &frame, ICMP6)[8..], bytes[14..14 + 40 + 8 + 8], "{fragment}");
    }
}

/// RFC 1122 §3.2.2; RFC 4443 has no such rule.
#[test]
fn errors_of_v4_are_about_first_fragments_only() {
    for (src, dst) in [V4, V6] {
        let part = |fragment| Build { fragment, ..udp(src, dst).with(&[0; 40]) };
        let (first, later) = if src == V4.0 { (0x2000, 0x4005) } else { (1, 0x29) };
        assert!(is_answered(&part(first)));
        assert_eq!(part(later).packet().part, Packet::LATER);
        assert_eq!(is_answered(&part(later)), src == V6.0);
    }
}

#[test]
fn nobody_is_answered_who_is_not_one() {
    for src in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "239.1.2.3"] {
        let (src, dst) = (format!("{src}:41000"), V4.1);
        assert!(!is_answered(&udp(&src, dst)), "{src}");
        assert_eq!(answer(&segment(&src, dst, tcp::SYN).bytes(), reset), None, "{src}");
    }
    for src in ["::", "ff02::1"] {
        let (src, dst) = (format!("[{src}]:41000"), V6.1);
        assert!(!is_answered(&udp(&src, dst)), "{src}");
        assert_eq!(answer(&segment(&src, dst, tcp::SYN).bytes(), reset), None, "{src}");
    }
    for src in ["127.0.0.1", "223.255.255.254", "240.0.0.1"] {
        assert!(is_answered(&udp(&format!("{src}:41000"), V4.1)), "{src}");
    }
    assert!(!is_answered(&udp(V4.0, "224.0.0.251:5353")));
    let mut bytes = segment(V4.0, V4.1, tcp::SYN).bytes();
    bytes[..6].fill(0xff);
    assert_eq!(answer(&bytes, reset), None);
}

#[test]
fn errors_mix_no_families() {
    let bytes = udp(V4.0, V4.1).bytes();
    let give =
        |o: &mut Reply, f: &Frame<'_>, p: &Packet| unreachable(o, f, p, Unreachable::Port, addr("fd00::1"));
    assert_eq!(answer(&bytes, give), None);
}

/// For each value of the field that a request can have.
#[test]
fn an_echo_reply_has_a_right_checksum() {
    for field in 0..=u16::MAX {
        for (family, request, reply) in [(Family::V4, 8_u8, 0_u8), (Family::V6, 128, 129)] {
            // A word that makes the field right: what is left of the sum.
            let rest = checksum(&[&[request, 0][..], &field.to_be_bytes()].concat());
            let [a, b] = rest.to_be_bytes();
            let [c, d] = field.to_be_bytes();
            assert_eq!(checksum(&[request, 0, c, d, a, b]), 0, "the test itself");
            let [c, d] = u16::from_be(echo_csum(field.to_be(), family)).to_be_bytes();
            assert_eq!(checksum(&[reply, 0, c, d, a, b]), 0, "{field:04x}");
        }
    }
}

#[test]
fn the_reply_to_a_ping_of_zeros_is_right() {
    let request = checksum(&[8, 0, 0, 0, 0, 0, 0, 0]);
    let reply = u16::from_be(echo_csum(request.to_be(), Family::V4));
    assert_eq!(reply, checksum(&[0; 8]));
}

#[test]
fn frames_have_the_lengths_that_are_promised() {
    for ((src, dst), of_reset, of_error) in
        [(V4, Reply::RESET_V4, Reply::ERROR_V4), (V6, Reply::RESET_V6, Reply::ERROR_V6)]
    {
        let frame = answer(&segment(src, dst, tcp::SYN).bytes(), reset).unwrap();
        assert_eq!(frame.len() as u32, of_reset);
        let source = udp(src, dst).packet().tuple.dst;
        let error = answer(&udp(src, dst).bytes(), |o, f, p| too_big(o, f, p, 1400, source)).unwrap();
        assert_eq!(error.len() as u32, of_error);
        assert_eq!(udp(src, dst).packet().proto, UDP);
    }
}
