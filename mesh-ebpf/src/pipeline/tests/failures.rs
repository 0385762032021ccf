//! Tasks that drain or go, tables that are lost, flows that end.

use super::life::{OUTSIDE, at, client};
use super::world::{End, Service, Who, World, own, task, vip};
use crate::abi::{Backend, BackendState, Frontend, NO_BACKEND, NetPort, TCP, UDP};
use crate::flow::{Head, Role};
use crate::packet::Tuple;
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::pipeline::{in_slots, step};
use crate::testing::{Node, tcp};
use crate::verdict::{Event, Refusal};

const MEMBER: usize = 6;

/// Three nodes, a service with two tasks on each, and a task of no service on the first.
fn six(flags: u16, affinity: u32) -> World {
    let service = Service { tasks: (0..6).collect(), target: 80, flags, affinity, ..Service::default() };
    World::with_tables(3, &[0, 1, 2, 0, 1, 2, 0], vec![service], 1 << 13)
}

/// A client outside or inside, and what it sends to.
fn both(v6: bool, port: u16) -> [(Who, std::net::SocketAddr, std::net::SocketAddr); 2] {
    [
        (OUTSIDE, client(v6, port), at(own(0, v6), 8000)),
        (Who::Task(MEMBER), at(task(0, MEMBER, v6), port), at(vip(0, v6), 80)),
    ]
}

#[test]
fn flows_are_spread_and_stay() {
    let world = six(0, 0);
    let mut counts = [0; 6];
    for port in 1000..1600 {
        for (who, src, dst) in both(false, port) {
            let first = world.both_ways(who, TCP, SYN, src, dst);
            counts[first.0] += 1;
            assert_eq!(world.both_ways(who, TCP, ACK, src, dst), first);
        }
    }
    assert!(counts.iter().all(|count| (120..280).contains(count)), "{counts:?}");
}

#[test]
fn a_task_that_drains_keeps_its_flows_and_gets_no_others() {
    for v6 in [false, true] {
        for (index, (who, src, dst)) in both(v6, 1000).into_iter().enumerate() {
            let mut world = six(0, 0);
            for proto in [TCP, UDP] {
                let (known, ..) = world.both_ways(who, proto, SYN, src, dst);
                world.both_ways(who, proto, ACK, src, dst);
                world.tasks[known].state = BackendState::Draining;
                world.write();
                assert_eq!(world.both_ways(who, proto, ACK, src, dst).0, known);
                for port in 2000..2100 {
                    let (who, src, dst) = both(v6, port)[index];
                    assert_ne!(world.both_ways(who, proto, SYN, src, dst).0, known);
                }
                if proto == TCP {
                    // The same port again is another connection.
                    assert_ne!(world.both_ways(who, TCP, SYN, src, dst).0, known);
                }
                world.tasks[known].state = BackendState::Active;
                world.write();
            }
        }
    }
}

#[test]
fn a_connection_ends_with_its_task_and_datagrams_go_elsewhere() {
    for (who, src, dst) in both(false, 1000) {
        let mut world = six(0, 0);
        let (gone, ..) = world.both_ways(who, TCP, SYN, src, dst);
        let (lost, ..) = world.both_ways(who, UDP, 0, src, dst);
        for index in [gone, lost] {
            world.tasks[index].state = BackendState::Gone;
            world.tasks[index].generation += 1;
        }
        world.write();
        assert_eq!(world.send(who, TCP, ACK, src, dst), End::Refused(Refusal::Closed));
        assert_eq!(world.nodes[0].counted(Event::BackendGone), 1);
        let (next, ..) = world.both_ways(who, UDP, 0, src, dst);
        assert!(next != gone && next != lost);
        assert_eq!(world.both_ways(who, UDP, 0, src, dst).0, next);
        // Whoever has the id now has no part in it.
        world.tasks[gone].state = BackendState::Active;
        world.write();
        assert_eq!(world.send(who, TCP, ACK, src, dst), End::Refused(Refusal::Closed));
        world.both_ways(who, TCP, SYN, src, dst);
        world.both_ways(who, TCP, ACK, src, dst);
    }
}

/// Its node may come back, and a connection waits for that. Datagrams do not, nor does what only begins.
#[test]
fn what_can_goes_elsewhere_when_a_node_falls_silent() {
    for (who, src, dst) in both(false, 1000) {
        let mut world = six(0, 0);
        let (known, ..) = world.both_ways(who, TCP, SYN, src, dst);
        world.both_ways(who, TCP, ACK, src, dst);
        let (lost, ..) = world.both_ways(who, UDP, 0, src, dst);
        for index in [known, lost] {
            world.tasks[index].state = BackendState::Silent;
        }
        world.write();
        assert_eq!(world.both_ways(who, TCP, ACK, src, dst).0, known);
        let (next, ..) = world.both_ways(who, UDP, 0, src, dst);
        assert!(next != known && next != lost);
        for index in [known, lost] {
            world.tasks[index].state = BackendState::Active;
        }
        world.write();
        assert_eq!(world.both_ways(who, UDP, 0, src, dst).0, next, "and stays there");
    }
}

/// The entry node does not know yet that a task has gone.
#[test]
fn what_arrives_for_a_task_that_has_gone_is_refused() {
    let mut world = six(0, 0);
    let (who, src, dst, known) = (1000..1100)
        .map(|port| both(false, port)[0])
        .map(|(who, src, dst)| (who, src, dst, world.both_ways(who, TCP, SYN, src, dst).0))
        .find(|(.., known)| world.tasks[*known].node != 0)
        .unwrap();
    let node = world.tasks[known].node;
    world.nodes[node].endpoints.clear();
    assert_eq!(world.send(who, TCP, ACK, src, dst), End::Refused(Refusal::Closed));
    assert_eq!(world.nodes[node].counted(Event::BackendGone), 1);
}

/// A table of two may have long runs of one.
#[test]
fn another_backend_is_found_beyond_a_long_run_of_one() {
    let mut node = Node::new(0, 64);
    node.backends = vec![Backend { state: BackendState::Active as u8, ..Backend::default() }; 3];
    let frontend = Frontend { mask: 255, backends: 2, ..Frontend::default() };
    for (first, count) in [(0, 128), (0, 24), (100, 24), (232, 24)] {
        node.slots = vec![1; 256];
        node.slots[first..first + count].fill(2);
        for hash in 0..256 {
            assert_eq!(in_slots(&node, &frontend, hash, 1), 2, "from slot {hash}, {count} slots");
            assert_eq!(in_slots(&node, &frontend, hash, NO_BACKEND), node.slots[hash as usize]);
        }
        let mut packet = tcp("192.0.2.7:1", "198.51.100.1:8000", SYN).packet();
        packet.frontend = Frontend { flags: Frontend::LEAST, ..frontend };
        packet.except = 1;
        for port in 1000..2000 {
            packet.tuple.ports = Tuple::join(NetPort::new(port), NetPort::new(8000));
            assert_eq!(step::pick(&node, &packet), 2, "from port {port}, {count} slots");
        }
    }
}

#[test]
fn a_flow_survives_the_loss_of_all_tables() {
    for flags in [0, Frontend::HASHED] {
        for (who, src, dst) in both(true, 1000) {
            let world = six(flags, 0);
            let first = world.both_ways(who, TCP, SYN, src, dst);
            world.nodes.iter().for_each(Node::lose_flows);
            assert_eq!(world.both_ways(who, TCP, ACK, src, dst), first);
            assert_eq!(world.nodes[0].counted(Event::MidFlow), 1);
        }
    }
}

#[test]
fn an_answer_finds_its_way_when_the_entry_node_has_forgotten() {
    let world = six(0, 0);
    for port in 1000..1020 {
        let (who, src, dst) = both(false, port)[0];
        let (known, seen, own_end) = world.both_ways(who, TCP, SYN, src, dst);
        if world.tasks[known].node != 0 {
            world.nodes[0].lose_flows();
            let end = world.send(Who::Task(known), TCP, ACK, own_end, seen);
            // By whichever device leads there.
            assert_eq!(end, End::At(Who::Net { node: 0, device: 0 }, dst, src));
        }
        // A process of the node is not behind a device.
        let (who, src) = (Who::Stack(0), at(own(0, false), port));
        let (known, seen, own_end) = world.both_ways(who, TCP, SYN, src, dst);
        if world.tasks[known].node != 0 {
            world.nodes[0].lose_flows();
            world.answer(known, TCP, ACK, (seen, own_end), (who, src, dst));
        }
    }
}

#[test]
fn a_client_stays_with_its_task_for_a_while() {
    let mut world = six(0, 100);
    let mut chosen = Vec::new();
    for last in 1..40_u16 {
        let ip = format!("192.0.2.{last}").parse().unwrap();
        let (known, ..) = world.both_ways(OUTSIDE, TCP, SYN, at(ip, 1), at(own(0, false), 8000));
        chosen.push(known);
        for port in 2..6 {
            world.pass(20);
            let to = world.both_ways(OUTSIDE, UDP, 0, at(ip, port), at(own(0, false), 8000));
            assert_eq!(to.0, known);
        }
    }
    assert!((0..6).all(|index| chosen.contains(&index)));
    // A task that drains keeps no clients.
    let ip = "192.0.2.1".parse().unwrap();
    world.tasks[chosen[0]].state = BackendState::Draining;
    world.write();
    let (other, ..) = world.both_ways(OUTSIDE, TCP, SYN, at(ip, 8), at(own(0, false), 8000));
    assert_ne!(other, chosen[0]);
    // When it comes back, the client stays where it is now, until it is forgotten.
    world.tasks[chosen[0]].state = BackendState::Active;
    world.write();
    assert_eq!(world.both_ways(OUTSIDE, TCP, SYN, at(ip, 9), at(own(0, false), 8000)).0, other);
    // Another CPU may have been ahead of this one's time.
    world.nodes[0].now.set(world.nodes[0].now.get() - 1);
    assert_eq!(world.both_ways(OUTSIDE, TCP, SYN, at(ip, 11), at(own(0, false), 8000)).0, other);
    world.pass(101);
    assert_eq!(world.both_ways(OUTSIDE, TCP, SYN, at(ip, 10), at(own(0, false), 8000)).0, chosen[0]);
}

/// The marks of both entries of a connection, wherever they are.
fn is_closing(world: &World) -> Vec<(bool, bool)> {
    let entries = world.nodes.iter().flat_map(|node| node.entries(TCP));
    entries.map(|flow| Head(flow.head)).map(|head| (head.is(Role::Reply), head.has(Head::CLOSING))).collect()
}

/// A connection that either side breaks off is not remembered for hours by the other side's node.
#[test]
fn the_end_of_a_connection_is_noted_for_both_sides() {
    for (who, src, dst) in both(false, 1000).into_iter().chain((1001..1012).map(|port| both(false, port)[0]))
    {
        for by_client in [false, true] {
            for flags in [FIN | ACK, RST] {
                let world = six(0, 0);
                let (known, seen, own_end) = world.both_ways(who, TCP, SYN, src, dst);
                world.both_ways(who, TCP, ACK, src, dst);
                assert!(is_closing(&world).iter().all(|(_, closing)| !closing));
                if by_client {
                    world.send(who, TCP, flags, src, dst);
                } else {
                    world.answer(known, TCP, flags, (seen, own_end), (who, src, dst));
                }
                let entries = is_closing(&world);
                assert_eq!(entries.len(), 2);
                assert!(entries.iter().all(|(_, closing)| *closing), "{entries:?} {by_client}");
            }
        }
    }
}

/// One side that speaks keeps what is known of both.
#[test]
fn a_flow_is_remembered_while_one_side_speaks() {
    for (who, src, dst) in both(false, 1000).into_iter().chain((1001..1012).map(|port| both(false, port)[0]))
    {
        for by_client in [false, true] {
            let world = six(0, 0);
            let (known, seen, own_end) = world.both_ways(who, UDP, 0, src, dst);
            for _ in 0..100 {
                world.pass(10);
                if by_client {
                    world.send(who, UDP, 0, src, dst);
                } else {
                    world.answer(known, UDP, 0, (seen, own_end), (who, src, dst));
                }
            }
            let now = world.nodes[0].now.get();
            for entry in world.nodes.iter().flat_map(|node| node.entries(UDP)) {
                // As exact as is worth a write, and ten until the next packet.
                assert!(Head(entry.head).age(now) <= 18, "{by_client} {entry:?}");
            }
        }
    }
}

/// Six hours of silence cost a connection nothing, wherever its task is and whatever came and went meanwhile. What is
/// silent for longer may be forgotten, but goes on if its task is where its hash leads, and is else told that it has
/// ended by a task that knows nothing of it: it is never left without an answer.
#[test]
fn a_connection_may_be_silent_for_six_hours() {
    const SIX_HOURS: u32 = 6 * 3600 * 1000 / 1074;
    let all = (1000..1030).flat_map(|port| both(false, port).into_iter().chain(both(true, port)));
    for (who, src, dst) in all {
        let mut world = six(0, 0);
        let known = world.both_ways(who, TCP, SYN, src, dst);
        let (task, seen, own_end) = known;
        world.both_ways(who, TCP, ACK, src, dst);
        // Its task leaves the balance, so that nothing but memory leads there.
        world.tasks[task].state = BackendState::Draining;
        world.write();
        for first_by_task in [true, false] {
            world.pass(SIX_HOURS);
            if first_by_task {
                world.answer(task, TCP, ACK, (seen, own_end), (who, src, dst));
            }
            assert_eq!(world.both_ways(who, TCP, ACK, src, dst), known);
        }
        world.pass(2 * SIX_HOURS);
        match world.send(who, TCP, ACK, src, dst) {
            End::At(Who::Task(_), ..) => {}
            end => panic!("{end:?}"),
        }
        // All the same when everything is forgotten.
        world.nodes.iter().for_each(Node::lose_flows);
        let (other, ..) = world.both_ways(who, TCP, ACK, src, dst);
        assert_ne!(other, task);
        assert_eq!(world.nodes[0].counted(Event::MidFlow), 1);
    }
}

#[test]
fn what_was_forgotten_begins_anew() {
    for (proto, flags) in [(TCP, SYN), (UDP, 0)] {
        for (who, src, dst) in both(false, 1000) {
            let mut world = six(0, 0);
            let (known, ..) = world.both_ways(who, proto, flags, src, dst);
            // The service's port is another now; the flow may not use the old one for ever.
            world.services[0].target = 81;
            world.write();
            let (_, _, before) = world.both_ways(who, proto, flags, src, dst);
            world.pass(10_000);
            let (again, _, after) = world.both_ways(who, proto, flags, src, dst);
            assert_eq!(again, known);
            let is_vip = matches!(who, Who::Task(_));
            assert_eq!((before.port(), after.port()), (80, if is_vip { 80 } else { 81 }));
        }
    }
}
