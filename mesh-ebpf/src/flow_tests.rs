use std::time::{Duration, Instant};

use super::*;
use crate::abi::{Named, TCP, UDP};
use crate::packet::tcp;
use crate::testing::{addr, tcp as segment};

const NAMED: Named = Named { opening: 60, established: 1000, closing: 50, datagram: 30, stream: 180 };
const TIMEOUTS: Timeouts = Timeouts::new(NAMED);
const CLIENT: Client = Client { place: Place::Uplink, via: 7 };
const EMPTY: Bucket = Bucket([Flow::EMPTY; WAYS]);

/// The tuple of a client with a port.
fn tuple(port: u16) -> Tuple {
    Tuple::new(addr("192.0.2.1"), NetPort::new(port), addr("10.0.0.1"), NetPort::new(80))
}

/// A flow whose fields all follow from its client's port.
fn flow(port: u16, now: u32) -> Flow {
    Flow {
        tuple: tuple(port),
        port: NetPort(port),
        client_port: NetPort(!port),
        head: Head::new(Role::Forward, CLIENT, 0, now).0,
        addr: Flow::target(u32::from(port), u32::from(port) << 8, !u32::from(port)),
    }
}

/// What is read of it.
fn content(port: u16) -> (NetPort, NetPort, Addr16) {
    let flow = flow(port, 0);
    (flow.port, flow.client_port, flow.addr)
}

fn put(bucket: &mut Bucket, port: u16, now: u32) -> Inserted {
    Shared::of(bucket).insert(&flow(port, now), TCP, now, &TIMEOUTS)
}

fn touch(bucket: &mut Bucket, port: u16, now: u32, states: u64) {
    let found = Shared::of(bucket).find(&tuple(port), Role::Forward).unwrap();
    found.set(found.head.used(now, states));
}

fn knows(bucket: &mut Bucket, port: u16) -> bool {
    let found = Shared::of(bucket).find(&tuple(port), Role::Forward);
    found.is_some_and(|found| found.read() == Some(content(port)))
}

#[test]
fn a_flow_is_found_by_its_tuple_and_role() {
    let mut bucket = EMPTY;
    assert!(!knows(&mut bucket, 1));
    for port in 1..=4 {
        assert_eq!(put(&mut bucket, port, 5), Inserted::Placed);
    }
    assert!((1..=4).all(|port| knows(&mut bucket, port)));
    let shared = Shared::of(&mut bucket);
    assert!(shared.find(&tuple(1), Role::Reply).is_none());
    assert!(shared.find(&tuple(5), Role::Forward).is_none());
    assert!(shared.find(&tuple(1).reversed(), Role::Forward).is_none());
}

#[test]
fn the_same_tuple_has_both_roles() {
    let mut bucket = EMPTY;
    put(&mut bucket, 1, 0);
    let reply =
        Flow { head: Head::new(Role::Reply, CLIENT, Head::HERE, 0).0, addr: addr("10.9.9.9"), ..flow(1, 0) };
    Shared::of(&mut bucket).insert(&reply, TCP, 0, &TIMEOUTS);
    assert!(knows(&mut bucket, 1));
    let found = Shared::of(&mut bucket).find(&tuple(1), Role::Reply).unwrap();
    assert_eq!(found.read().unwrap().2, addr("10.9.9.9"));
    assert!(found.head.has(Head::HERE));
}

#[test]
fn a_head_keeps_what_it_is_given() {
    for place in [Place::Task, Place::Uplink, Place::Stack, Place::Peer] {
        for role in [Role::Forward, Role::Reply, Role::Origin] {
            let client = Client { place, via: 0xff_ffff };
            let marks = Head::HERE | Head::SELF | Head::LOOPBACK | Head::SNAT | Head::idle_mark(15);
            let head = Head::new(role, client, marks, 0xf_ffff);
            assert_eq!(head.idle(), 15);
            assert_eq!(head.client(), client);
            assert!(head.is(role) && !head.is_empty() && !head.has(Head::BUSY) && !head.has(Head::CLOSING));
            let used = head.used(3, Head::CLOSING);
            assert!(used.is_still(head) && used.has(Head::CLOSING) && used.age(3) == 0);
            assert_eq!(used.client(), client);
            assert_eq!(head.by(CLIENT).client(), CLIENT);
            assert_eq!(head.by(CLIENT).by(client), head);
        }
    }
    let at = |place, via| Client { place, via };
    assert!(at(Place::Task, 1).may_be(at(Place::Task, 1)));
    assert!(at(Place::Uplink, 1).may_be(at(Place::Peer, 2)));
    assert!(at(Place::Uplink, 1).may_be(at(Place::Uplink, 2)));
    // What is inside stays where it is.
    assert!(!at(Place::Task, 1).may_be(at(Place::Task, 2)));
    assert!(!at(Place::Task, 1).may_be(at(Place::Uplink, 1)));
    assert!(!at(Place::Peer, 0).may_be(at(Place::Stack, 0)));
}

/// Expired goes before closing, closing before opening.
#[test]
fn what_is_needed_least_gives_way_first() {
    let mut bucket = EMPTY;
    for port in 1..=4 {
        put(&mut bucket, port, 100);
    }
    touch(&mut bucket, 1, 100, Head::ESTABLISHED);
    touch(&mut bucket, 3, 100, Head::ESTABLISHED | Head::CLOSING);
    // 2 and 4 are opening; 4 has expired.
    touch(&mut bucket, 2, 161, 0);
    touch(&mut bucket, 3, 161, 0);
    assert_eq!(put(&mut bucket, 5, 161), Inserted::Placed);
    assert!(!knows(&mut bucket, 4));
    touch(&mut bucket, 5, 161, Head::ESTABLISHED);
    assert_eq!(put(&mut bucket, 6, 161), Inserted::Evicted);
    assert!(!knows(&mut bucket, 3) && knows(&mut bucket, 2));
    touch(&mut bucket, 6, 161, Head::ESTABLISHED);
    assert_eq!(put(&mut bucket, 7, 161), Inserted::Evicted);
    assert!(!knows(&mut bucket, 2));
    assert!([1, 5, 6, 7].iter().all(|port| knows(&mut bucket, *port)));
}

#[test]
fn a_flood_takes_no_established_flows_place() {
    let mut bucket = EMPTY;
    for port in 1..=4 {
        put(&mut bucket, port, 0);
        touch(&mut bucket, port, 0, Head::ESTABLISHED);
    }
    for port in 100..60_000 {
        assert_eq!(put(&mut bucket, port, u32::from(port) % 1000), Inserted::Full);
    }
    assert!((1..=4).all(|port| knows(&mut bucket, port)));
    // Until they are over.
    assert_eq!(put(&mut bucket, 5, 1001), Inserted::Placed);
}

#[test]
fn each_state_has_its_time() {
    let cases = [
        (TCP, 0, NAMED.opening),
        (TCP, Head::ESTABLISHED, NAMED.established),
        (TCP, Head::ESTABLISHED | Head::CLOSING, NAMED.closing),
        (UDP, 0, NAMED.datagram),
        (UDP, Head::ESTABLISHED, NAMED.stream),
    ];
    for (proto, states, timeout) in cases {
        let head = Head::new(Role::Forward, CLIENT, 0, 10).used(10, states);
        assert_eq!(head.timeout(proto, &TIMEOUTS), timeout);
        // A service's own holds for what is established, and for all of UDP.
        let own = Head(head.0 | Head::idle_mark(Timeouts::step(900))).timeout(proto, &TIMEOUTS);
        let asked = proto == UDP || states == Head::ESTABLISHED;
        assert_eq!(own, if asked { 900 } else { timeout });
        assert_ne!(head.spare(proto, 10 + timeout, &TIMEOUTS), 3);
        assert_eq!(head.spare(proto, 11 + timeout, &TIMEOUTS), 3);
    }
}

#[test]
fn time_wraps_without_notice() {
    let head = Head::new(Role::Forward, CLIENT, 0, 0xf_fffe);
    assert_eq!(head.age(0xf_ffff), 1);
    assert_eq!(head.age(0x10_0003), 5);
    assert_eq!(head.age(3), 5);
    assert_eq!(head.age(0x7_0000), 0x7_0002);
    assert_eq!(head.used(0x1f_ffff, 0).age(0x20_0000), 1);
}

#[test]
fn idle_timeouts_are_rounded_up() {
    let of = |seconds| Timeouts::WISHES[Timeouts::step(seconds) as usize];
    assert_eq!(
        [1, 10, 11, 60, 61, 3600, 5 * 86_400, u32::MAX].map(of),
        [10, 10, 30, 60, 120, 3600, 432_000, 432_000]
    );
    // Twice the longest is still told from what is yet to come.
    assert!(Timeouts::WISHES.iter().all(|seconds| 2 * seconds < 1 << 20));
}

#[test]
fn time_is_written_when_it_matters() {
    let head = Head::new(Role::Forward, CLIENT, 0, 100).used(100, Head::ESTABLISHED);
    let heard = |client, states, now| head.heard(client, states, TCP, now, &TIMEOUTS);
    assert_eq!(heard(CLIENT, Head::ESTABLISHED, 108), head);
    assert_eq!(heard(CLIENT, 0, 109).age(109), 0);
    let opening = Head::new(Role::Forward, CLIENT, 0, 100);
    let asked = [103, 104].map(|now| opening.is_stale(TCP, now, &TIMEOUTS));
    assert_eq!(asked, [false, true], "a sixteenth of 60");
    // What is closing has a shorter time, and it begins now.
    let closing = heard(CLIENT, Head::CLOSING, 110);
    assert!(closing.has(Head::CLOSING) && closing.has(Head::ESTABLISHED) && closing.age(110) == 0);
    let elsewhere = Client { place: Place::Peer, via: 3 };
    assert_eq!((heard(elsewhere, 0, 110).client(), heard(elsewhere, 0, 110).age(110)), (elsewhere, 0));
}

/// Another CPU may have noted a tick that this one has not seen begin.
#[test]
fn what_was_used_in_a_moment_is_not_old() {
    let mut bucket = EMPTY;
    for port in 1..=4 {
        put(&mut bucket, port, 11);
        touch(&mut bucket, port, 11, Head::ESTABLISHED);
    }
    assert_eq!(put(&mut bucket, 5, 10), Inserted::Full);
    assert!((1..=4).all(|port| knows(&mut bucket, port)));
}

#[test]
fn an_entry_that_is_written_is_not_there_and_not_free() {
    let mut bucket = EMPTY;
    put(&mut bucket, 1, 0);
    bucket.0[0].head |= Head::BUSY;
    assert!(!knows(&mut bucket, 1));
    // Even expired it is nobody else's.
    for port in 2..=4 {
        assert_eq!(put(&mut bucket, port, 900), Inserted::Placed);
        touch(&mut bucket, port, 900, Head::ESTABLISHED);
    }
    assert_eq!(put(&mut bucket, 5, 900), Inserted::Full);
}

#[test]
fn who_comes_late_changes_nothing() {
    let mut bucket = EMPTY;
    put(&mut bucket, 1, 0);
    let shared = Shared::of(&mut bucket);
    let late = shared.find(&tuple(1), Role::Forward).unwrap();
    assert!(late.replace(&flow(2, 0)));
    // Same client, same role, same moment: only the flow is another.
    assert_eq!(late.read(), None);
    assert!(!late.replace(&flow(3, 0)));
    assert!(!late.set(late.head.used(0, Head::CLOSING)));
    assert!(!shared.find(&tuple(2), Role::Forward).unwrap().head.has(Head::CLOSING));
    assert!(knows(&mut bucket, 2) && !knows(&mut bucket, 1));
}

#[test]
fn a_packet_says_what_state_its_side_is_in() {
    let of = |flags| states(&segment("192.0.2.1:1", "10.0.0.1:80", flags).packet());
    assert_eq!(of(tcp::SYN), 0);
    assert_eq!(of(tcp::SYN | tcp::ACK), 0);
    assert_eq!(of(tcp::ACK), Head::ESTABLISHED);
    assert_eq!(of(tcp::FIN | tcp::ACK), Head::ESTABLISHED | Head::CLOSING);
    assert_eq!(of(tcp::RST), Head::CLOSING);
}

/// Whatever several CPUs do with one bucket, nobody reads a flow with another's backend.
#[test]
fn flows_are_never_mixed() {
    let mut bucket = Box::new(EMPTY);
    let place = (&raw mut *bucket) as usize;
    let run = |first: u32| {
        let mut random = first;
        let mut hits = 0;
        for _ in 0..300_000 {
            // SAFETY: the bucket lives until all threads have ended.
            let shared = unsafe { Shared::at(place as *mut Bucket) };
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let port = 1 + (random >> 24) as u16 % 12;
            let start = Instant::now();
            match shared.find(&tuple(port), Role::Forward) {
                Some(found) => {
                    let read = found.read();
                    // A program is not interrupted for as long as 32 flows take, a thread may be.
                    if let Some(read) = read.filter(|_| start.elapsed() < Duration::from_micros(2)) {
                        assert_eq!(read, content(port));
                        hits += 1;
                    }
                    match random >> 20 & 3 {
                        0 => _ = found.set(found.head.used(0, Head::CLOSING)),
                        1 => _ = found.replace(&flow(port % 12 + 1, 0)),
                        _ => {}
                    }
                }
                None => _ = shared.insert(&flow(port, 0), TCP, 0, &TIMEOUTS),
            }
        }
        hits
    };
    let hits: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=3).map(|first| scope.spawn(move || run(first))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(hits > 10_000);
}
