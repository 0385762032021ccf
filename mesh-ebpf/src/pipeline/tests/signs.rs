//! What tasks make of connections is counted, whichever way these come, and nothing else is.

use std::net::{IpAddr, SocketAddr};

use super::life::{OUTSIDE, at, client};
use super::world::{Service, VNI, Who, World, device, own, task, vip};
use crate::abi::{NetPort, Served, ServedKey, Signs, TCP, UDP};
use crate::frame::Frame;
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::pipeline;
use crate::testing::{Build, Node, icmp, parse, tcp, udp};

/// The task that serves, on the second node; one beside it, and one on the first.
const SERVER: usize = 0;
const BESIDE: usize = 1;
const FAR: usize = 2;
const PORT: u16 = 80;

/// Published at 8000 of both nodes, with the server's port known on its node.
fn world() -> World {
    let service = Service { tasks: vec![SERVER], target: PORT, ..Service::default() };
    let mut world = World::new(2, &[1, 1, 0], vec![service]);
    for v6 in [false, true] {
        let key = ServedKey::new(task(1, SERVER, v6).into(), NetPort::new(PORT), TCP);
        world.nodes[1].served.insert(key, Served { index: 7, vni: VNI });
    }
    world
}

/// Begun, answered, refused.
fn counted(world: &World) -> [i64; 3] {
    assert!(world.nodes[0].signs.borrow().is_empty(), "only the task's own node counts");
    let signs = world.nodes[1].signs.borrow();
    let Signs([begun, answered, refused, unreachable]) = signs.get(&7).copied().unwrap_or_default();
    assert!(signs.keys().all(|index| *index == 7));
    assert_eq!(unreachable, 0, "no datagrams");
    [begun, answered, refused]
}

/// A segment that a task sends, as it is.
fn says(node: &Node, by: usize, src: &str, dst: &str, flags: u8, seq: u32) {
    let mut packet = Build { seq, ..tcp(src, dst, flags) }.packet();
    let _ = pipeline::from_task(node, &mut packet, device(by));
}

#[test]
fn connections_are_counted_by_every_way() {
    for v6 in [false, true] {
        for (who, src, dst) in [
            // By the other node's port, by its own, by the VIP from near and far, and between addresses of the network.
            (OUTSIDE, client(v6, 1000), at(own(0, v6), 8000)),
            (Who::Net { node: 1, device: 2 }, client(v6, 1001), at(own(1, v6), 8000)),
            (Who::Task(BESIDE), at(task(1, BESIDE, v6), 1002), at(vip(0, v6), PORT)),
            (Who::Task(FAR), at(task(0, FAR, v6), 1003), at(vip(0, v6), PORT)),
            (Who::Task(BESIDE), at(task(1, BESIDE, v6), 1004), at(task(1, SERVER, v6), PORT)),
            (Who::Task(FAR), at(task(0, FAR, v6), 1005), at(task(1, SERVER, v6), PORT)),
        ] {
            let world = world();
            world.send(who, TCP, SYN, src, dst);
            assert_eq!(counted(&world), [1, 0, 0], "{who:?} {dst}");
            let world = self::world();
            world.both_ways(who, TCP, SYN, src, dst);
            assert_eq!(counted(&world), [1, 1, 0], "{who:?} {dst}");
            for flags in [ACK, FIN | ACK] {
                world.both_ways(who, TCP, flags, src, dst);
            }
            assert_eq!(counted(&world), [1, 1, 0], "the middle and the end of one say nothing");
        }
    }
}

#[test]
fn a_refusal_is_told_from_a_connection_that_is_broken_off() {
    let world = world();
    let node = &world.nodes[1];
    says(node, SERVER, "10.0.1.1:80", "192.0.2.1:999", RST | ACK, 0);
    assert_eq!(counted(&world), [0, 0, 1]);
    says(node, SERVER, "10.0.1.1:80", "192.0.2.1:999", RST | ACK, 5);
    says(node, SERVER, "10.0.1.1:80", "192.0.2.1:999", RST, 0);
    assert_eq!(counted(&world), [0, 0, 1]);
}

#[test]
fn ports_that_nobody_said_are_served_say_nothing() {
    let world = world();
    for port in (1..200).filter(|port| *port != PORT) {
        let dst = at(vip(0, false), port);
        world.send(Who::Task(BESIDE), TCP, SYN, at(task(1, BESIDE, false), 1000), dst);
        says(&world.nodes[1], SERVER, &format!("10.0.1.1:{port}"), "10.0.1.2:1000", RST | ACK, 0);
    }
    assert_eq!(counted(&world), [0, 0, 0]);
}

#[test]
fn nobody_speaks_for_another_task_or_another_network() {
    let mut world = world();
    let node = &world.nodes[1];
    says(node, BESIDE, "10.0.1.1:80", "192.0.2.1:999", RST | ACK, 0);
    says(node, BESIDE, "10.0.1.1:80", "192.0.2.1:999", SYN | ACK, 0);
    says(node, BESIDE, "10.0.1.9:999", "10.0.1.1:80", SYN, 0);
    assert_eq!(counted(&world), [0, 0, 0], "with an address that is not its own");
    for served in world.nodes[1].served.values_mut() {
        served.vni = VNI + 1;
    }
    let (src, dst) = (at(task(1, BESIDE, false), 1000), at(task(1, SERVER, false), PORT));
    world.send(Who::Task(BESIDE), TCP, SYN, src, dst);
    let (src, dst) = (at(task(0, FAR, false), 1000), at(task(1, SERVER, false), PORT));
    world.send(Who::Task(FAR), TCP, SYN, src, dst);
    assert_eq!(counted(&world), [0, 0, 0], "what the gates keep away from it");
}

#[test]
fn errors_count_that_say_that_nobody_is_there() {
    for (v6, closed, other) in [(false, 3, 11), (true, 1, 3)] {
        let mut world = world();
        let node = &mut world.nodes[1];
        let (server, beside) = (task(1, SERVER, v6), task(1, BESIDE, v6));
        let key = ServedKey::new(server.into(), NetPort::new(PORT), UDP);
        node.served.insert(key, Served { index: 7, vni: VNI });
        let client = if v6 { "[2001:db8::9]:999" } else { "192.0.2.9:999" };
        let to = |dst: IpAddr, port| SocketAddr::new(dst, port).to_string();
        let about = |src: IpAddr, kind, quoted: &Build| {
            let dst = quoted.src.ip().to_string();
            let error = icmp(&src.to_string(), &dst, kind).with(&quoted.bytes()[14..]).bytes();
            let mut packet = parse(&error).unwrap();
            assert!(packet.quote(&Frame::new(&error)));
            let _ = pipeline::from_task(node, &mut packet, device(SERVER));
            let Signs(signs) = node.signs.borrow().get(&7).copied().unwrap_or_default();
            signs
        };
        let datagram = udp(client, &to(server, PORT));
        assert_eq!(about(server, closed, &datagram), [0, 0, 0, 1]);
        assert_eq!(about(server, closed, &tcp(client, &to(server, PORT), SYN)), [0, 0, 1, 1]);
        assert_eq!(about(server, other, &datagram), [0, 0, 1, 1], "an error of another kind");
        assert_eq!(about(server, closed, &udp(client, &to(server, PORT + 1))), [0, 0, 1, 1], "another port");
        assert_eq!(about(server, closed, &udp(client, &to(beside, PORT))), [0, 0, 1, 1], "about another");
        assert_eq!(about(beside, closed, &datagram), [0, 0, 1, 1], "with an address that is not its own");
    }
}
