//! Answers that programs give themselves, byte by byte.

use std::net::SocketAddr;

use mesh_ebpf::abi::Frontend;
use mesh_ebpf::verdict::{Event, Refusal};

use crate::frame::{
    ACK, ETH, FIN, ICMP, ICMP6, MACS, RST, SYN, TCP, UDP, frame, in_one_fragment, is_right, read,
};
use crate::life::{FAMILIES, OUTSIDE, at, client, one};
use crate::world::{End, Service, Who, World, own, task, vip};

const fn icmp(v6: bool) -> u8 {
    if v6 { ICMP6 } else { ICMP }
}

/// Task 0 on the first node; of the services the first has nobody, the second lets few in.
fn empty() -> World {
    let allow =
        vec![("192.0.2.0".parse().expect("an address"), 24), ("2001:db8::".parse().expect("an address"), 32)];
    let guarded = Service { tasks: vec![0], flags: Frontend::GUARDED, allow, ..Service::default() };
    World::new(1, &[0], &[Service::default(), guarded])
}

/// Refused, with these bytes after the Ethernet header's addresses were exchanged.
fn refused(end: End, how: Refusal, sent: &[u8]) -> Vec<u8> {
    let End::Refused(said, bytes) = end else { panic!("{end:?}") };
    assert_eq!(said, how);
    assert!(is_right(&bytes), "{bytes:02x?}");
    assert_eq!(bytes[..12], [MACS[1], MACS[0]].concat());
    let (asked, answered) = (read(sent).expect("a packet"), read(&bytes).expect("a packet"));
    assert_eq!((answered.src.ip(), answered.dst.ip()), (asked.dst.ip(), asked.src.ip()));
    bytes
}

#[test]
fn segments_to_nobody_are_reset() {
    let mut world = empty();
    for v6 in FAMILIES {
        let (src, dst) = (at(task(0, 0, v6), 5000), at(vip(0, v6), 80));
        // What a segment says, and what a reset to it says: sequence and acknowledgement (RFC 9293 §3.5.2).
        let seq = 0x0102_0304_u32 + 7;
        for (flags, numbers, answer) in [
            (SYN, [0, seq + 1], RST | ACK),
            (SYN | FIN, [0, seq + 2], RST | ACK),
            (ACK, [0x0506_0708, 0], RST),
            (ACK | FIN, [0x0506_0708, 0], RST),
        ] {
            let sent = frame(TCP, flags, src, dst, b"payload");
            let end = world.carry(Who::Task(0), sent.clone());
            let bytes = refused(end, Refusal::Closed, &sent);
            let seen = read(&bytes).expect("a packet");
            assert_eq!((seen.src, seen.dst, seen.flags, seen.end), (dst, src, answer, bytes.len()));
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            assert_eq!([word(seen.l4 + 4), word(seen.l4 + 8)], numbers, "{flags:#x}");
            assert_eq!(bytes.len(), seen.l4 + 20);
        }
        // A reset is not answered.
        assert_eq!(world.send(Who::Task(0), TCP, RST, src, dst), End::Dropped(Event::Unanswerable));
    }
}

#[test]
fn datagrams_and_pings_to_nobody_are_unreachable() {
    let mut world = empty();
    for v6 in FAMILIES {
        let (src, dst) = (at(task(0, 0, v6), 5000), at(vip(0, v6), 80));
        let ping = if v6 { 128 } else { 8 };
        for (proto, how, code) in [
            (UDP, Refusal::Closed, if v6 { 4 } else { 3 }),
            (icmp(v6), Refusal::Unreachable, if v6 { 3 } else { 1 }),
        ] {
            let sent = frame(proto, ping, src, dst, b"payload");
            let end = world.carry(Who::Task(0), sent.clone());
            let bytes = refused(end, how, &sent);
            let seen = read(&bytes).expect("a packet");
            assert_eq!(
                (seen.proto, seen.flags, bytes[seen.l4 + 1]),
                (icmp(v6), if v6 { 1 } else { 3 }, code)
            );
            // It quotes the packet.
            let quoted = &bytes[seen.l4 + 8..];
            assert_eq!(quoted, &sent[ETH..ETH + quoted.len()]);
        }
    }
}

#[test]
fn strangers_are_turned_away() {
    let mut world = empty();
    for v6 in FAMILIES {
        // An address that is not the task's own.
        let (src, dst) = (at(task(0, 5, v6), 5000), at(vip(0, v6), 80));
        for (proto, kind) in [(TCP, SYN), (UDP, 0), (icmp(v6), if v6 { 128 } else { 8 })] {
            let sent = frame(proto, kind, src, dst, b"payload");
            let end = world.carry(Who::Task(0), sent.clone());
            let bytes = refused(end, Refusal::Prohibited, &sent);
            let seen = read(&bytes).expect("a packet");
            if proto != TCP {
                assert_eq!(bytes[seen.l4 + 1], if v6 { 1 } else { 13 });
            }
        }
        // A published port that is not for everybody is as if it were not there.
        let far: SocketAddr =
            if v6 { "[2001:db9::1]:7" } else { "203.0.113.1:7" }.parse().expect("an address");
        assert_eq!(world.send(OUTSIDE, TCP, SYN, far, at(own(0, v6), 8001)), End::Passed(0));
        let near = world.send(OUTSIDE, TCP, SYN, client(v6, 7), at(own(0, v6), 8001));
        assert!(matches!(near, End::At(Who::Task(0), _)), "{near:?}");
    }
    assert_eq!(world.nodes[0].counted(Event::Prohibited), 8);
}

#[test]
fn a_ping_of_a_vip_is_answered() {
    let mut world = one(0);
    for v6 in FAMILIES {
        let (src, dst) = (at(task(0, 1, v6), 0), at(vip(0, v6), 0));
        for payload in [&b"payload"[..], b"", &[0; 1000]] {
            let sent = frame(icmp(v6), if v6 { 128 } else { 8 }, src, dst, payload);
            let End::Echoed(bytes) = world.carry(Who::Task(1), sent.clone()) else { panic!("no echo") };
            let seen = read(&bytes).expect("a packet");
            assert!(is_right(&bytes));
            assert_eq!((seen.src, seen.dst, seen.flags), (dst, src, if v6 { 129 } else { 0 }));
            assert_eq!(bytes[..12], [MACS[1], MACS[0]].concat());
            assert_eq!(bytes[seen.l4 + 4..], sent[seen.l4 + 4..], "identifier, number and payload");
        }
        // Other messages get no answer, and do not reach the node's own sockets.
        let other = world.send(Who::Task(1), icmp(v6), if v6 { 135 } else { 13 }, src, dst);
        assert_eq!(other, End::Dropped(Event::Unsupported));
    }
    assert_eq!(world.nodes[0].counted(Event::Ping), 6);
}

/// A fragment header alone makes no fragment of a packet (RFC 6946).
#[test]
fn what_comes_in_one_fragment_is_answered() {
    let (src, dst) = (at(task(0, 0, true), 5000), at(vip(0, true), 80));
    let mut world = empty();
    let sent = in_one_fragment(&frame(UDP, 0, src, dst, b"payload"));
    let bytes = refused(world.carry(Who::Task(0), sent.clone()), Refusal::Closed, &sent);
    let quoted = &bytes[ETH + 40 + 8..];
    assert_eq!(quoted, &sent[ETH..ETH + 40 + 8 + 8], "with the ports");
    let sent = in_one_fragment(&frame(ICMP6, 128, at(task(0, 1, true), 0), at(vip(0, true), 0), b"payload"));
    let End::Echoed(bytes) = one(0).carry(Who::Task(1), sent.clone()) else { panic!("no echo") };
    assert!(is_right(&bytes), "{bytes:02x?}");
    assert_eq!(read(&bytes).expect("a packet").flags, 129);
    assert_eq!(bytes[ETH + 40..ETH + 48], sent[ETH + 40..ETH + 48]);
}
