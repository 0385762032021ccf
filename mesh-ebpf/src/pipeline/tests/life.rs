//! Ways there and back, from each kind of client.

use std::net::{IpAddr, SocketAddr};

use super::world::{End, Service, Who, World, inside, own, task, vip};
use crate::abi::{Frontend, TCP, UDP};
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::testing::{Build, tcp};
use crate::verdict::{Event, Refusal};

pub(super) const OUTSIDE: Who = Who::Net { node: 0, device: 2 };
const FAMILIES: [bool; 2] = [false, true];

pub(super) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Somebody outside.
pub(super) fn client(v6: bool, port: u16) -> SocketAddr {
    at(if v6 { "2001:db8::7" } else { "192.0.2.7" }.parse().unwrap(), port)
}

/// Two nodes, a service with one task on one of them, and a task of no service on each.
fn one(node: usize) -> World {
    let service = Service { tasks: vec![0], target: 80, ..Service::default() };
    World::new(2, &[node, 0, 1], vec![service])
}

/// A whole connection, or a few datagrams.
fn converse(
    world: &World,
    who: Who,
    proto: u8,
    src: SocketAddr,
    dst: SocketAddr,
) -> (usize, SocketAddr, SocketAddr) {
    let first = world.both_ways(who, proto, SYN, src, dst);
    for flags in [ACK, ACK, ACK | FIN] {
        assert_eq!(world.both_ways(who, proto, flags, src, dst), first);
        world.pass(1);
    }
    first
}

#[test]
fn a_published_port_is_reached_from_outside() {
    for (v6, node, proto) in
        FAMILIES.iter().flat_map(|v6| [0, 1].map(|node| [(*v6, node, TCP), (*v6, node, UDP)])).flatten()
    {
        let world = one(node);
        let (src, dst) = (client(v6, 41_000), at(own(0, v6), 8000));
        // The task sees the client's own address.
        assert_eq!(converse(&world, OUTSIDE, proto, src, dst), (0, src, at(task(node, 0, v6), 80)));
        assert_eq!(world.nodes[0].counted(Event::NewFlow), 1);
        assert_eq!(world.nodes[0].flows.borrow().values().sum::<u64>(), 1);
        // An entry for each direction, where it is needed.
        let entries = [world.nodes[0].entries(proto).len(), world.nodes[1].entries(proto).len()];
        assert_eq!(entries, if node == 0 { [2, 0] } else { [1, 1] });
    }
}

#[test]
fn a_vip_is_reached_by_tasks_and_processes() {
    for v6 in FAMILIES {
        for node in [0, 1] {
            let world = one(node);
            // A VIP has whatever port its tasks have.
            let dst = at(vip(0, v6), 443);
            let seen = at(task(node, 0, v6), 443);
            for proto in [TCP, UDP] {
                let src = at(task(0, 1, v6), 5000);
                assert_eq!(converse(&world, Who::Task(1), proto, src, dst), (0, src, seen));
                let src = at(inside(0, v6), 5000);
                assert_eq!(converse(&world, Who::Stack(0), proto, src, dst).2, seen);
            }
            // All is translated by the client's node.
            assert!(world.nodes[1].entries(TCP).is_empty());
        }
    }
}

/// A client takes a port again that it had towards a VIP, and goes straight to the backend: sockets are led there, and
/// names lead there.
#[test]
fn a_port_that_was_used_for_a_vip_may_be_used_without_it() {
    for v6 in FAMILIES {
        for (node, answer) in [0, 1].into_iter().flat_map(|node| [(node, SYN | ACK), (node, RST | ACK)]) {
            let world = one(node);
            let (vip, straight) = (at(vip(0, v6), 443), at(task(node, 0, v6), 443));
            for (who, src) in
                [(Who::Task(1), at(task(0, 1, v6), 5000)), (Who::Stack(0), at(inside(0, v6), 5000))]
            {
                for _ in 0..2 {
                    assert_eq!(converse(&world, who, TCP, src, vip), (0, src, straight));
                    if matches!(who, Who::Task(_)) {
                        assert_eq!(
                            world.send(who, TCP, SYN, src, straight),
                            End::At(Who::Task(0), src, straight)
                        );
                    }
                    let (from, to) = (straight.to_string(), src.to_string());
                    // A reset that answers a SYN has the number 0.
                    let back = |flags| world.carry(Who::Task(0), Build { seq: 0, ..tcp(&from, &to, flags) });
                    let here = |end: &End| match (who, end) {
                        (_, End::At(to, from, by)) => (*to, *from, *by) == (who, straight, src),
                        // The kernel takes it from here.
                        (Who::Stack(_), end) => *end == End::Passed,
                        _ => false,
                    };
                    for flags in [answer, ACK, ACK | FIN] {
                        let end = back(flags);
                        assert!(here(&end), "{who:?} by way of node {node} is answered {flags:#x}: {end:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_task_reaches_itself() {
    for v6 in FAMILIES {
        let world = one(0);
        let src = at(task(0, 0, v6), 5000);
        for dst in [at(vip(0, v6), 80), at(own(0, v6), 8000)] {
            let (to, seen, own) = converse(&world, Who::Task(0), TCP, src, dst);
            assert_eq!((to, own), (0, at(task(0, 0, v6), 80)));
            assert_eq!(seen.ip(), inside(0, v6), "nobody answers himself");
        }
    }
}

/// Both with one source port: a task towards itself, and a process from a loopback address.
#[test]
fn both_that_borrow_the_nodes_address_can_be_told_apart() {
    for v6 in FAMILIES {
        let world = one(0);
        let local: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
        let a = (Who::Task(0), at(task(0, 0, v6), 5000), at(own(0, v6), 8000));
        let b = (Who::Stack(0), at(local, 5000), at(local, 8000));
        let first = world.both_ways(a.0, TCP, SYN, a.1, a.2);
        let second = world.both_ways(b.0, TCP, SYN, b.1, b.2);
        assert_ne!(first.1, second.1);
        world.answer(0, TCP, ACK, (first.1, first.2), a);
        world.answer(0, TCP, ACK, (second.1, second.2), b);
    }
}

#[test]
fn a_task_reaches_a_published_port_of_its_own_node_and_of_another() {
    for v6 in FAMILIES {
        for node in [0, 1] {
            let world = one(node);
            let src = at(task(0, 1, v6), 5000);
            let seen = at(task(node, 0, v6), 80);
            assert_eq!(converse(&world, Who::Task(1), TCP, src, at(own(0, v6), 8000)), (0, src, seen));
        }
    }
}

#[test]
fn a_process_reaches_a_published_port_by_any_address_of_its_node() {
    let one_v4 = ["127.0.0.1", "127.0.0.53", "127.1.2.3"];
    for node in [0, 1] {
        for (v6, local) in one_v4.iter().map(|local| (false, *local)).chain([(true, "::1")]) {
            let world = one(node);
            let local = local.parse().unwrap();
            for proto in [TCP, UDP] {
                let (src, dst) = (at(local, 5000), at(local, 8000));
                let (_, seen, to) = converse(&world, Who::Stack(0), proto, src, dst);
                assert_eq!((seen.ip(), to), (inside(0, v6), at(task(node, 0, v6), 80)));
                let src = at(own(0, v6), 5001);
                let (_, seen, _) = converse(&world, Who::Stack(0), proto, src, at(own(0, v6), 8000));
                assert_eq!(seen, src);
            }
        }
    }
}

/// One who says that he is the node itself is nobody.
#[test]
fn loopback_addresses_do_not_come_in_by_a_device() {
    let world = one(0);
    let src = "127.0.0.1:5000".parse().unwrap();
    assert_eq!(world.send(OUTSIDE, TCP, SYN, src, at(own(0, false), 8000)), End::Passed);
}

#[test]
fn what_is_not_published_is_left_to_the_kernel() {
    let world = one(0);
    for dst in [at(own(0, false), 8001), "203.0.113.9:8000".parse().unwrap()] {
        assert_eq!(world.send(OUTSIDE, TCP, SYN, client(false, 1), dst), End::Passed);
        assert_eq!(world.send(Who::Stack(0), TCP, SYN, at(own(0, false), 1), dst), End::Passed);
    }
    assert!(world.nodes[0].entries(TCP).is_empty());
    // Between tasks all is as without us.
    let (src, dst) = (at(task(0, 1, false), 1), at(task(1, 2, false), 2));
    assert_eq!(world.send(Who::Task(1), TCP, SYN, src, dst), End::At(Who::Task(2), src, dst));
}

#[test]
fn a_vip_is_for_its_network_only() {
    let mut world = one(0);
    let dst = at(vip(0, false), 80);
    let prohibited = End::Refused(Refusal::Prohibited);
    // With an address that is not the task's own.
    assert_eq!(world.send(Who::Task(1), TCP, SYN, at(task(1, 2, false), 1), dst), prohibited);
    assert_eq!(world.ping(Who::Task(1), task(1, 2, false), vip(0, false)), prohibited);
    let endpoint = world.nodes[0].endpoints.get_mut(&super::world::device(1)).unwrap();
    endpoint.vni += 1;
    assert_eq!(world.send(Who::Task(1), UDP, 0, at(task(0, 1, false), 1), dst), prohibited);
    assert_eq!(world.ping(Who::Task(1), task(0, 1, false), vip(0, false)), prohibited);
    assert_eq!(world.nodes[0].counted(Event::Prohibited), 4);
    // From outside it does not exist.
    assert_eq!(world.send(OUTSIDE, TCP, SYN, client(false, 1), dst), End::Passed);
}

#[test]
fn a_guarded_port_lets_in_who_may() {
    let allowed = vec!["192.0.2.7"];
    let service =
        Service { tasks: vec![0], target: 80, flags: Frontend::GUARDED, allowed, ..Service::default() };
    let world = World::new(2, &[1], vec![service]);
    let dst = at(own(0, false), 8000);
    world.both_ways(OUTSIDE, TCP, SYN, client(false, 1), dst);
    assert_eq!(world.send(OUTSIDE, TCP, SYN, "192.0.2.8:1".parse().unwrap(), dst), End::Passed);
    assert_eq!(world.nodes[0].counted(Event::Prohibited), 1);
}

#[test]
fn a_ping_is_answered_while_somebody_is_there() {
    for v6 in FAMILIES {
        let mut world = one(1);
        let (who, src) = (Who::Task(1), task(0, 1, v6));
        assert_eq!(world.ping(who, src, vip(0, v6)), End::Echoed);
        assert_eq!(world.ping(Who::Stack(0), own(0, v6), vip(0, v6)), End::Echoed);
        assert_eq!(world.nodes[0].counted(Event::Ping), 2);
        world.services[0].tasks.clear();
        world.write();
        assert_eq!(world.ping(who, src, vip(0, v6)), End::Refused(Refusal::Unreachable));
        let end = world.send(who, TCP, SYN, at(src, 1), at(vip(0, v6), 80));
        assert_eq!(end, End::Refused(Refusal::Closed));
        // A published port without backends is as if it were not published.
        assert_eq!(world.send(OUTSIDE, TCP, SYN, client(v6, 1), at(own(0, v6), 8000)), End::Passed);
    }
}
