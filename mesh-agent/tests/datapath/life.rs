//! Packets' lives: from a client over one or two nodes to a task, and back.

use std::net::{IpAddr, SocketAddr};

use mesh_ebpf::flow::{Head, Role};
use mesh_ebpf::verdict::Event;

use crate::frame::{ACK, ETH, FIN, MACS, SYN, TCP, UDP, frame, in_one_fragment, is_right, read};
use crate::node::{HOST_END, Hook};
use crate::world::{End, Service, UPLINK, Who, World, backend, device, inside, mac, own, task, vip};

pub(crate) const OUTSIDE: Who = Who::Net(0);
pub(crate) const FAMILIES: [bool; 2] = [false, true];

pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Somebody outside.
pub(crate) fn client(v6: bool, port: u16) -> SocketAddr {
    at(if v6 { "2001:db8::7" } else { "192.0.2.7" }.parse().expect("an address"), port)
}

/// Two nodes, a service with task 0 on one of them, and a task of no service on each.
pub(crate) fn one(node: usize) -> World {
    World::new(2, &[node, 0, 1], &[Service { tasks: vec![0], ..Service::default() }])
}

/// Sends a packet to the service and has its task answer. The addresses that the task saw.
fn there_and_back(
    world: &mut World,
    who: Who,
    proto: u8,
    flags: u8,
    src: SocketAddr,
    dst: SocketAddr,
) -> [SocketAddr; 2] {
    let End::At(Who::Task(0), bytes) = world.send(who, proto, flags, src, dst) else {
        panic!("{who:?} {src} does not reach a task at {dst}");
    };
    let seen = read(&bytes).expect("a packet");
    assert!(is_right(&bytes));
    assert_eq!(bytes[..12], [mac(0), HOST_END].concat(), "from the host's end of the veth to the task's");
    assert_eq!(
        (seen.flags, &bytes[bytes.len() - 7..]),
        (if proto == TCP { flags } else { 0 }, &b"payload"[..])
    );
    let End::At(back, bytes) = world.send(Who::Task(0), proto, flags | ACK, seen.dst, seen.src) else {
        panic!("the answer to {who:?} {src} is lost");
    };
    let answer = read(&bytes).expect("a packet");
    assert!(is_right(&bytes));
    assert_eq!((back, answer.src, answer.dst), (who, dst, src));
    match who {
        Who::Net(_) => assert_eq!(bytes[12..14], frame(proto, 0, src, dst, b"")[12..14]),
        Who::Task(task) => assert_eq!(bytes[..12], [mac(task), HOST_END].concat()),
        Who::Stack(_) => assert_eq!(bytes[..12], [0; 12]),
    }
    [seen.src, seen.dst]
}

fn converse(world: &mut World, who: Who, proto: u8, src: SocketAddr, dst: SocketAddr) -> [SocketAddr; 2] {
    let first = there_and_back(world, who, proto, SYN, src, dst);
    for flags in [ACK, ACK, ACK | FIN] {
        assert_eq!(there_and_back(world, who, proto, flags, src, dst), first);
    }
    world.agree();
    first
}

#[test]
fn a_published_port_is_reached_from_outside() {
    for node in [0, 1] {
        let mut world = one(node);
        for v6 in FAMILIES {
            let (src, dst) = (client(v6, 41_000), at(own(0, v6), 8000));
            for proto in [TCP, UDP] {
                let before = world.nodes[0].counted(Event::NewFlow);
                let seen = converse(&mut world, OUTSIDE, proto, src, dst);
                assert_eq!(seen, [src, at(task(node, 0, v6), 80)], "the task sees the client's own address");
                assert_eq!(world.nodes[0].counted(Event::NewFlow), before + 1);
            }
            // Of TCP and UDP together: two flows of four packets.
            let (stats, ip) = (world.nodes[0].stats(backend(0, v6)), if v6 { 40 } else { 20 });
            assert_eq!(
                (stats.flows, stats.packets, stats.bytes),
                (2, 8, 4 * (ip + 20 + 7) + 4 * (ip + 8 + 7))
            );
        }
        for proto in [TCP, UDP] {
            let roles = |node: usize| {
                let flows = world.nodes[node].flows(proto);
                [Role::Forward, Role::Reply]
                    .map(|role| flows.iter().filter(|flow| Head(flow.head).is(role)).count())
            };
            // Of each family one, where it is needed: the client's node chose, the task's translates.
            assert_eq!([roles(0), roles(1)], if node == 0 { [[2, 2], [0, 0]] } else { [[2, 0], [0, 2]] });
        }
    }
}

#[test]
fn a_packet_for_another_node_crosses_the_tunnel_as_the_client_sent_it() {
    use mesh_ebpf::abi::NetPort;
    use mesh_ebpf::tunnel::{Tag, Terms};
    use mesh_ebpf::verdict::{Action, To};

    let mut world = one(1);
    let sent = frame(TCP, SYN, client(false, 41_000), at(own(0, false), 8000), b"payload");
    let out = world.nodes[0].run(Hook::Net(UPLINK), &sent);
    let to = To::Peer { peer: 2, tag: Tag::Forward(NetPort::new(80), Terms::default()), mac: mac(0) };
    assert_eq!(out.action, Action::Send(to));
    assert_eq!(out.bytes[..12], [mac(0), [2, 9, 9, 9, 9, 0]].concat());
    assert_eq!(out.bytes[12..], sent[12..]);
}

/// What is translated before it is tunnelled says by its frame's source whose it is, as long as its task may be gone:
/// then it comes back, and goes to another.
#[test]
fn what_begins_by_a_vip_at_a_task_that_has_just_left_gets_another() {
    for (v6, proto) in FAMILIES.into_iter().flat_map(|v6| [(v6, TCP), (v6, UDP)]) {
        let service = Service { tasks: vec![0, 1], ..Service::default() };
        let mut world = World::new(3, &[1, 2, 0], &[service]);
        let (who, dst) = (Who::Task(2), at(vip(0, v6), 80));
        let src = |port| at(task(0, 2, v6), port);
        let port = |world: &mut World| {
            (1000..)
                .find(|port| {
                    let end = world.send(who, proto, SYN, src(*port), dst);
                    matches!(end, End::At(Who::Task(0), bytes) if bytes[6..12] == HOST_END)
                })
                .expect("one of them")
        };
        let known = port(&mut world);
        for (flags, from) in [(SYN, mac(0)), (ACK, if proto == UDP { mac(0) } else { [2, 9, 9, 9, 9, 0] })] {
            let bytes = frame(proto, flags, src(known), dst, b"payload");
            let out = world.nodes[0].run(Hook::Task(device(2)), &bytes);
            assert_eq!(out.bytes[..12], [[2, 9, 9, 9, 9, 1], from].concat(), "{flags:#x}");
        }
        world.nodes[1].change(|tables| tables.endpoints.clear());
        for flags in [SYN, ACK, ACK] {
            let End::At(Who::Task(1), bytes) = world.send(who, proto, flags, src(known), dst) else {
                panic!("it is not with the other task")
            };
            let seen = read(&bytes).expect("a packet");
            assert!(is_right(&bytes), "{bytes:02x?}");
            assert_eq!((seen.src, seen.dst), (src(known), at(task(2, 1, v6), 80)));
        }
        let answer = world.send(Who::Task(1), proto, SYN | ACK, at(task(2, 1, v6), 80), src(known));
        let End::At(Who::Task(2), bytes) = answer else { panic!("{answer:?}") };
        assert_eq!(read(&bytes).expect("a packet").src, dst);
    }
}

/// Wherever the option stands, and also at an odd byte.
#[test]
fn a_syn_announces_no_more_than_fits_into_the_tunnel() {
    const OPTIONS: [([u8; 8], usize); 3] = [
        ([2, 4, 0x23, 0x28, 1, 3, 3, 7], 2),
        ([1, 2, 4, 0x23, 0x28, 1, 1, 1], 3),
        ([1, 1, 2, 4, 1, 0, 1, 1], 4),
    ];
    // Its task is on another node, or here: then nothing is tunnelled.
    for node in [1, 0] {
        let mut world = one(node);
        for (v6, (turn, (options, place))) in
            FAMILIES.into_iter().flat_map(|v6| OPTIONS.into_iter().enumerate().map(move |turn| (v6, turn)))
        {
            let (src, dst) = (client(v6, 41_000 + turn as u16), at(own(0, v6), 8000));
            let said = u16::from_be_bytes([options[place], options[place + 1]]);
            let most = if node == 0 { said } else { said.min(1450 - if v6 { 60 } else { 40 }) };
            let check = |world: &mut World, at: usize, hook, flags, src, dst| {
                let (bytes, l4) = with_options(flags, src, dst, &options);
                let out = world.nodes[at].run(hook, &bytes);
                let now = u16::from_be_bytes([out.bytes[l4 + 20 + place], out.bytes[l4 + 21 + place]]);
                assert_eq!(now, most, "{flags:#x} {options:?} to node {node}");
                assert!(is_right(&out.bytes));
            };
            check(&mut world, 0, Hook::Net(UPLINK), SYN, src, dst);
            there_and_back(&mut world, OUTSIDE, TCP, SYN, src, dst);
            let task = at(task(node, 0, v6), 80);
            check(&mut world, node, Hook::Task(device(0)), SYN | ACK, task, src);
        }
    }
}

/// A segment with eight bytes of options, and where its header begins.
fn with_options(flags: u8, src: SocketAddr, dst: SocketAddr, options: &[u8; 8]) -> (Vec<u8>, usize) {
    let mut bytes = frame(TCP, flags, src, dst, options);
    let l4 = read(&bytes).expect("a packet").l4;
    bytes[l4 + 12] = 7 << 4;
    crate::frame::sum_up(&mut bytes);
    (bytes, l4)
}

#[test]
fn a_vip_is_reached_by_tasks_and_processes() {
    for node in [0, 1] {
        let mut world = one(node);
        for v6 in FAMILIES {
            // A VIP has whatever port its tasks have.
            let (dst, seen) = (at(vip(0, v6), 443), at(task(node, 0, v6), 443));
            for proto in [TCP, UDP] {
                let src = at(task(0, 1, v6), 5000);
                assert_eq!(converse(&mut world, Who::Task(1), proto, src, dst), [src, seen]);
                let src = at(inside(0, v6), 5000);
                assert_eq!(converse(&mut world, Who::Stack(0), proto, src, dst), [src, seen]);
            }
        }
    }
}

#[test]
fn a_task_reaches_itself() {
    let mut world = one(0);
    for v6 in FAMILIES {
        let src = at(task(0, 0, v6), 5000);
        for dst in [at(vip(0, v6), 80), at(own(0, v6), 8000)] {
            let [seen, own] = converse(&mut world, Who::Task(0), TCP, src, dst);
            assert_eq!((seen.ip(), own), (inside(0, v6), at(task(0, 0, v6), 80)), "nobody answers himself");
        }
    }
}

#[test]
fn a_process_reaches_a_published_port_by_any_address_of_its_node() {
    for node in [0, 1] {
        let mut world = one(node);
        for (v6, local) in [(false, "127.0.0.1"), (false, "127.1.2.3"), (true, "::1")] {
            let local: IpAddr = local.parse().expect("an address");
            let [seen, own_end] = converse(&mut world, Who::Stack(0), TCP, at(local, 5000), at(local, 8000));
            assert_eq!((seen.ip(), own_end), (inside(0, v6), at(task(node, 0, v6), 80)));
        }
        for v6 in FAMILIES {
            let src = at(own(0, v6), 5000);
            let [seen, _] = converse(&mut world, Who::Stack(0), UDP, src, at(own(0, v6), 8000));
            assert_eq!(seen, src);
        }
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut world = one(0);
    for v6 in FAMILIES {
        for proto in [TCP, UDP] {
            // Another port, and another node's address.
            for dst in [at(own(0, v6), 8001), at(own(1, v6), 8000)] {
                assert_eq!(world.send(OUTSIDE, proto, SYN, client(v6, 7), dst), End::Passed(0));
            }
        }
        // A ping of the node itself, and nothing at all that is known.
        let (icmp, ping) = if v6 { (58, 128) } else { (1, 8) };
        assert_eq!(world.send(OUTSIDE, icmp, ping, client(v6, 0), at(own(0, v6), 0)), End::Passed(0));
    }
    let arp = [MACS.concat(), vec![8, 6], vec![0; 28]].concat();
    assert_eq!(world.carry(OUTSIDE, arp), End::Passed(0));
    assert!(world.nodes[0].flows(TCP).is_empty() && world.nodes[0].flows(UDP).is_empty());
    world.agree();
}

/// The first has the ports, and goes as a whole packet would. Another waits until the first was seen.
#[test]
fn fragments_wait_for_the_first() {
    let mut world = one(0);
    let mut fragment = |offset: usize, value| {
        let mut bytes = frame(UDP, 0, client(false, 7), at(own(0, false), 8000), b"payload");
        bytes[ETH + offset] = value;
        world.carry(OUTSIDE, bytes)
    };
    assert!(matches!(fragment(6, 0x1f), End::Echoed(_)));
    assert!(matches!(fragment(7, 1), End::Echoed(_)));
    assert_eq!(world.nodes[0].counted(Event::FragmentWaits), 2);
}

/// A fragment header alone makes no fragment of a packet (RFC 6946).
#[test]
fn a_packet_in_one_fragment_is_whole() {
    for node in [0, 1] {
        let mut world = one(node);
        let (src, dst) = (client(true, 7), at(own(0, true), 8000));
        for (proto, flags) in [(UDP, 0), (TCP, SYN)] {
            let sent = in_one_fragment(&frame(proto, flags, src, dst, b"payload"));
            let End::At(Who::Task(0), bytes) = world.carry(OUTSIDE, sent) else { panic!("it is lost") };
            let seen = read(&bytes).expect("a packet");
            assert!(is_right(&bytes), "{bytes:02x?}");
            assert_eq!((seen.src, seen.dst), (src, at(task(node, 0, true), 80)));
            assert_eq!(bytes[ETH + 40..ETH + 48], [proto, 0, 0, 0, 9, 9, 9, 9]);
        }
    }
}

/// A datagram without a checksum has none afterwards (RFC 768).
#[test]
fn no_checksum_is_made_up() {
    let mut world = one(0);
    let mut bytes = frame(UDP, 0, client(false, 7), at(own(0, false), 8000), b"payload");
    bytes[ETH + 26..ETH + 28].fill(0);
    let End::At(Who::Task(0), bytes) = world.carry(OUTSIDE, bytes) else { panic!("it is lost") };
    assert_eq!(bytes[ETH + 26..ETH + 28], [0, 0]);
}

/// Another flow had the port: the task must see two.
#[test]
fn two_flows_that_meet_in_one_tuple_are_told_apart() {
    let service = Service { tasks: vec![0], ..Service::default() };
    let mut world = World::new(1, &[0], &[service.clone(), service]);
    for v6 in FAMILIES {
        for proto in [TCP, UDP] {
            let src = client(v6, 41_000);
            let [first, second] = [8000, 8001]
                .map(|port| there_and_back(&mut world, OUTSIDE, proto, SYN, src, at(own(0, v6), port)));
            assert_eq!(first[0], src);
            assert_eq!((second[0].ip(), second[1]), (src.ip(), first[1]));
            assert_ne!(second[0].port(), src.port());
            for (port, ends) in [(8000, first), (8001, second)] {
                let again = there_and_back(&mut world, OUTSIDE, proto, ACK, src, at(own(0, v6), port));
                assert_eq!(again, ends);
            }
        }
    }
    assert_eq!(world.nodes[0].counted(Event::PortChanged), 4);
    world.agree();
}

/// The task that a client was given is its own for a while, whatever its port.
#[test]
fn a_client_stays_with_its_task() {
    let service = Service { tasks: vec![0, 1], affinity: 100, ..Service::default() };
    let mut world = World::new(2, &[0, 1], &[service]);
    let mut chosen = [0; 2];
    for last in 1..30 {
        let ip: IpAddr = [192, 0, 2, last].into();
        let mut tasks = (1000..1005).map(|port| {
            match world.send(
                OUTSIDE,
                if port % 2 == 0 { TCP } else { UDP },
                SYN,
                at(ip, port),
                at(own(0, false), 8000),
            ) {
                End::At(Who::Task(task), _) => task,
                other => panic!("{other:?}"),
            }
        });
        let first = tasks.next().expect("five");
        chosen[first] += 1;
        assert!(tasks.all(|task| task == first));
    }
    assert!(chosen.iter().all(|count| *count > 5), "{chosen:?}");
    world.agree();
}

#[test]
fn a_task_that_drains_keeps_its_flows_and_one_that_is_gone_ends_them() {
    use mesh_ebpf::abi::BackendState;
    use mesh_ebpf::verdict::Refusal;

    let mut world = World::new(1, &[0, 0], &[Service { tasks: vec![0, 1], ..Service::default() }]);
    let (src, dst) = (|port| client(false, port), at(own(0, false), 8000));
    let first = |world: &mut World, port| match world.send(OUTSIDE, TCP, SYN, src(port), dst) {
        End::At(Who::Task(task), _) => task,
        other => panic!("{other:?}"),
    };
    let port = (1000..1100).find(|port| first(&mut world, *port) == 0).expect("one of them");
    let state = |world: &mut World, state: BackendState| {
        world.nodes[0].change(|tables| {
            tables.backends.get_mut(&backend(0, false)).expect("it").state = state as u8;
        });
    };
    state(&mut world, BackendState::Draining);
    assert!(matches!(world.send(OUTSIDE, TCP, ACK, src(port), dst), End::At(Who::Task(0), _)));
    assert!((2000..2050).all(|port| first(&mut world, port) == 1));
    state(&mut world, BackendState::Gone);
    assert!(matches!(world.send(OUTSIDE, TCP, ACK, src(port), dst), End::Refused(Refusal::Closed, _)));
    assert_eq!(world.nodes[0].counted(Event::BackendGone), 1);
    world.agree();
}
