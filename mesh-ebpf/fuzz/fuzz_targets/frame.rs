//! Any bytes as a frame: it is read as the RFCs have it, and what answers it is right.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use mesh_ebpf::abi::{ICMP, ICMP6, TCP, UDP};
use mesh_ebpf::frame::Frame;
use mesh_ebpf::packet::{Packet, Tuple, tcp};
use mesh_ebpf::reply::{self, Reply, Unreachable};
use mesh_ebpf_fuzz::read::{self, ETH, Read, be};

fuzz_target!(|bytes: &[u8]| {
    let frame = Frame::new(bytes);
    let mut packet = Packet::EMPTY;
    let known = packet.read(&frame).is_ok();
    let read = read::frame(bytes);
    assert_eq!(known, read.is_some(), "one reads it, and the other does not: {read:?}");
    let Some(read) = read else { return };
    check(&packet, &read, bytes);
    if read.is_error(&bytes[ETH..]) && !read.is_part() {
        check_quote(&mut packet, &frame, &read, bytes);
    }
    check_answers(&packet, &frame, &read, bytes);
});

/// What is said of a packet, and that whatever is rewritten of it is there.
fn check(packet: &Packet, read: &Read, bytes: &[u8]) {
    assert_eq!(ends(&packet.tuple), ends_of(read));
    assert_eq!(packet.sent, packet.tuple);
    assert_eq!(packet.proto, read.proto);
    assert_eq!(usize::from(packet.l4), ETH + read.l4);
    assert_eq!(packet.whole != 0, read.whole);
    let end = read.end.unwrap_or(if read.proto == TCP { 65_535 } else { 0 });
    assert_eq!(usize::from(packet.len), end);
    let part = match read.fragment {
        (0, false) => Packet::WHOLE,
        (0, true) => Packet::FIRST,
        _ => Packet::LATER,
    };
    assert_eq!(packet.part, part);
    if read.is_later() {
        return;
    }
    let l4 = ETH + read.l4;
    let (header, flags) = match read.proto {
        TCP => (20, bytes[l4 + 13]),
        UDP => (8, 0),
        _ => (8, bytes[l4]),
    };
    assert_eq!(packet.flags, flags);
    assert!(l4 + header <= bytes.len() && l4 + header <= ETH + end);
}

fn check_quote(packet: &mut Packet, frame: &Frame<'_>, read: &Read, bytes: &[u8]) {
    let found = packet.quote(frame);
    let quote = read::quote(&bytes[ETH..], read);
    assert_eq!(found, quote.is_some(), "{quote:?}");
    if let Some((_, quote)) = quote {
        assert_eq!((ends(&packet.quoted), packet.quoted_proto), (ends_of(&quote), quote.proto));
        assert_eq!(packet.quoted_sent, packet.quoted);
    } else {
        assert_eq!(packet.quoted_proto, 0);
    }
}

fn check_answers(packet: &Packet, frame: &Frame<'_>, read: &Read, bytes: &[u8]) {
    let answer = |give: &dyn Fn(&mut Reply) -> bool| -> Option<Vec<u8>> {
        let mut out = Reply { words: [0xdead_beef; 30], ..Reply::new() };
        let all = |out: &Reply| -> Vec<u8> { out.words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
        give(&mut out).then(|| all(&out)[Reply::BEFORE..][..out.len as usize].to_vec())
    };
    if !read.is_later()
        && let Some(reset) = answer(&|out| reply::reset(out, frame, packet))
    {
        check_reset(&reset, read, bytes);
    }
    let source = packet.tuple.dst;
    for (code, v4, v6) in [
        (Unreachable::Port, [3, 3], [1, 4]),
        (Unreachable::Host, [3, 1], [1, 3]),
        (Unreachable::Prohibited, [3, 13], [1, 1]),
    ] {
        if let Some(error) = answer(&|out| reply::unreachable(out, frame, packet, code, source)) {
            check_error(&error, read, bytes, if read.dst.is_ipv4() { v4 } else { v6 }, 0);
        }
    }
    let mtu = u16::from_ne_bytes([bytes[0], bytes[1]]);
    if let Some(error) = answer(&|out| reply::too_big(out, frame, packet, mtu, source)) {
        check_error(&error, read, bytes, if read.dst.is_ipv4() { [3, 4] } else { [2, 0] }, mtu);
    }
}

/// What is true of every answer, which is given back as it is read.
fn check_answer(answer: &[u8], read: &Read, bytes: &[u8]) -> Read {
    assert_eq!((&answer[..6], &answer[6..12]), (&bytes[6..12], &bytes[..6]));
    assert_eq!(bytes[0] & 1, 0, "an answer to what was for many");
    let told = read::valid(&answer[ETH..]).unwrap();
    assert_eq!((told.src, told.dst), (read.dst, read.src));
    assert!(!told.is_part());
    let nobody = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_unspecified() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    };
    assert!(!nobody(&read.src), "an answer to {}", read.src);
    told
}

/// RFC 9293 §3.5.2.
fn check_reset(answer: &[u8], read: &Read, bytes: &[u8]) {
    let told = check_answer(answer, read, bytes);
    assert_eq!((told.proto, told.ports), (TCP, (read.ports.1, read.ports.0)));
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes[..4].try_into().unwrap());
    let (asked, said) = (&bytes[ETH + read.l4..], &answer[ETH + told.l4..]);
    assert_eq!(said.len(), 20);
    assert_eq!(asked[13] & tcp::RST, 0, "a reset of a reset");
    if asked[13] & tcp::ACK != 0 {
        assert_eq!((number(&said[4..]), number(&said[8..]), said[13]), (number(&asked[8..]), 0, tcp::RST));
    } else {
        let header = usize::from(asked[12] >> 4) * 4;
        let payload = read.end.unwrap_or(65_535) - read.l4 - header;
        let mark = |flag: u8| usize::from(asked[13] & flag != 0);
        let len = payload + mark(tcp::SYN) + mark(tcp::FIN);
        let end = number(&asked[4..]).wrapping_add(len as u32);
        assert_eq!((number(&said[4..]), number(&said[8..]), said[13]), (0, end, tcp::RST | tcp::ACK));
    }
}

/// RFC 1122 §3.2.2, RFC 4443 §2.4.
fn check_error(answer: &[u8], read: &Read, bytes: &[u8], kind: [u8; 2], mtu: u16) {
    let told = check_answer(answer, read, bytes);
    assert_eq!(told.proto, if read.dst.is_ipv4() { ICMP } else { ICMP6 });
    let message = &answer[ETH + told.l4..];
    assert_eq!((&message[..2], be(&message[4..]), be(&message[6..])), (&kind[..], 0, mtu));
    let quoted = &message[8..];
    assert!(quoted.len() >= read.l4 + if read.is_later() { 0 } else { 8 }, "it quotes too little");
    assert_eq!(*quoted, bytes[ETH..ETH + quoted.len()]);
    assert!(!(read.dst.is_ipv4() && read.is_later()), "an error about a part that is not the first");
    assert!(!read.is_error(&bytes[ETH..]), "an error about an error");
}

type Ends = (IpAddr, u16, IpAddr, u16);

fn ends(tuple: &Tuple) -> Ends {
    (tuple.src.into(), tuple.sport().number(), tuple.dst.into(), tuple.dport().number())
}

fn ends_of(read: &Read) -> Ends {
    (read.src, read.ports.0, read.dst, read.ports.1)
}
