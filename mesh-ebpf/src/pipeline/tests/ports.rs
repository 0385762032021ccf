//! Flows that meet in one tuple, that come another way, and that find no place.

use super::life::{OUTSIDE, at, client};
use super::world::{End, Service, Who, World, backend, own, task};
use crate::abi::{Frontend, TCP, UDP};
use crate::frame::Frame;
use crate::kernel::Kernel;
use crate::packet::tcp::{ACK, FIN, SYN};
use crate::pipeline;
use crate::testing::{Node, icmp, parse, udp};
use crate::verdict::{Event, To, Verdict};

const fn outside(node: usize) -> Who {
    Who::Net { node, device: 2 }
}

/// Three nodes, and one task on the last.
fn one() -> World {
    World::new(3, &[2], vec![Service { tasks: vec![0], target: 80, ..Service::default() }])
}

/// A client uses one port towards two nodes, and both choose the same task.
#[test]
fn two_flows_that_meet_are_kept_apart() {
    for (proto, v6) in [(TCP, false), (TCP, true), (UDP, false), (UDP, true)] {
        let world = one();
        let src = client(v6, 41_000);
        let flows: Vec<_> = (0..3).map(|node| (outside(node), src, at(own(node, v6), 8000))).collect();
        let seen: Vec<_> =
            flows.iter().map(|(who, src, dst)| world.both_ways(*who, proto, SYN, *src, *dst)).collect();
        assert_eq!(seen[0].1, src, "the first keeps its port");
        assert!(seen[1].1 != src && seen[2].1 != src && seen[1].1 != seen[2].1);
        assert!(seen.iter().all(|seen| seen.1.ip() == src.ip()));
        assert_eq!(world.nodes[2].counted(Event::PortChanged), 2);
        // All go on with what they have, in any order.
        for _ in 0..3 {
            for (flow, seen) in flows.iter().zip(&seen).rev() {
                assert_eq!(world.both_ways(flow.0, proto, ACK, flow.1, flow.2), *seen);
                world.answer(0, proto, ACK, (seen.1, seen.2), *flow);
            }
        }
    }
}

/// It is about the answer as the task sent it, and not about that of the flow that has the port.
#[test]
fn an_error_finds_the_flow_whose_port_was_changed() {
    for (v6, kind) in [(false, 3), (true, 2)] {
        let world = one();
        let src = client(v6, 41_000);
        let flows = [0, 1].map(|node| (outside(node), src, at(own(node, v6), 8000)));
        for (node, (who, src, dst)) in flows.into_iter().enumerate() {
            let (_, seen, task) = world.both_ways(who, UDP, 0, src, dst);
            let about = udp(&dst.to_string(), &src.to_string()).bytes();
            let error = icmp(&src.ip().to_string(), &dst.ip().to_string(), kind).with(&about[14..]).bytes();
            let mut packet = parse(&error).unwrap();
            assert!(packet.quote(&Frame::new(&error)));
            assert_eq!(pipeline::from_net(&world.nodes[node], &mut packet, 2), Verdict::SEND);
            let To::Peer { tag, mac, .. } = packet.hop.to() else { panic!("{:?}", packet.hop) };
            let from = 1 + node as u32;
            assert_eq!(
                pipeline::from_mesh(
                    &world.nodes[2],
                    &mut packet,
                    from,
                    tag.vni(),
                    [mac, [2, 9, 9, 9, 9, node as u8]]
                ),
                Verdict::SEND
            );
            assert_eq!(packet.quoted_sent, udp(&task.to_string(), &seen.to_string()).packet().tuple);
        }
    }
}

/// The first of two flows that met is over. The second has its other port still.
#[test]
fn a_changed_port_stays_changed() {
    for (proto, flags) in [(TCP, FIN | ACK), (UDP, 0)] {
        let world = one();
        let src = client(false, 41_000);
        let flows = [0, 1].map(|node| (outside(node), src, at(own(node, false), 8000)));
        world.both_ways(flows[0].0, proto, SYN, src, flows[0].2);
        let second = world.both_ways(flows[1].0, proto, SYN, src, flows[1].2);
        world.both_ways(flows[0].0, proto, flags, src, flows[0].2);
        for _ in 0..100 {
            world.pass(20);
            assert_eq!(world.both_ways(flows[1].0, proto, ACK, src, flows[1].2), second);
        }
        // Its place is given to another, in the end.
        let bucket = world.nodes[2].entries(proto).iter().filter(|flow| flow.client_port.0 == 0).count();
        assert_eq!(bucket, 1);
        forget(&world.nodes[2], proto, src.port());
        assert_eq!(world.both_ways(flows[1].0, proto, ACK, src, flows[1].2), second);
    }
}

/// Gives the place of the reply flow to `port` to another flow.
fn forget(node: &Node, proto: u8, port: u16) {
    use crate::flow::{Flow, Role};
    let entries = node.entries(proto);
    let old = entries.iter().find(|flow| flow.tuple.dport().number() == port).unwrap();
    let bucket = node.bucket(proto, crate::hash::place(&old.tuple, node.config.table_seed)).unwrap();
    let found = bucket.find(&old.tuple, Role::Reply).unwrap();
    let tuple = crate::packet::Tuple { ports: 0, ..old.tuple };
    assert!(found.replace(&Flow { tuple, ..*old }));
}

/// Routers may change their minds about the way to a node, and balance over several.
#[test]
fn a_flow_may_come_by_another_device() {
    for proto in [TCP, UDP] {
        let world =
            World::new(2, &[0, 1, 0, 1], vec![Service { tasks: (0..4).collect(), ..Service::default() }]);
        for port in 1000..1040 {
            let (src, dst) = (client(false, port), at(own(0, false), 8000));
            let first = world.both_ways(OUTSIDE, proto, SYN, src, dst);
            for device in [3, 2, 3] {
                let end = world.send(Who::Net { node: 0, device }, proto, ACK, src, dst);
                assert_eq!(end, End::At(Who::Task(first.0), first.1, first.2));
            }
        }
        assert_eq!(world.nodes.iter().map(|node| node.counted(Event::PortChanged)).sum::<u32>(), 0);
    }
}

/// An address that several nodes have, behind a router: a flow may come in by another of them at any time.
#[test]
fn a_flow_may_come_by_another_node() {
    let tasks = [0, 1, 2, 0, 1, 2];
    let service = Service { tasks: (0..6).collect(), flags: Frontend::HASHED, ..Service::default() };
    for proto in [TCP, UDP] {
        let mut world = World::new(3, &tasks, vec![service.clone()]);
        let shared: std::net::IpAddr = "203.0.113.80".parse().unwrap();
        for node in &mut world.nodes {
            node.locals.insert(shared.into());
        }
        for port in 1000..1040 {
            let (src, dst) = (client(false, port), at(shared, 8000));
            let first = world.both_ways(outside(0), proto, SYN, src, dst);
            for node in [1, 2, 0, 1] {
                // Answers follow at the latest by then.
                world.pass(9);
                assert_eq!(world.both_ways(outside(node), proto, ACK, src, dst), first, "{port} by {node}");
            }
        }
    }
}

/// By whichever node a client comes.
#[test]
fn all_nodes_choose_alike_where_they_must() {
    let tasks = [0, 1, 2, 0, 1, 2];
    let service = Service { tasks: (0..6).collect(), flags: Frontend::HASHED, ..Service::default() };
    let world = World::new(3, &tasks, vec![service]);
    for port in 1000..1100 {
        let chosen = [0, 1, 2].map(|node| {
            world.both_ways(outside(node), TCP, SYN, client(false, port), at(own(node, false), 8000)).0
        });
        assert!(chosen.iter().all(|task| *task == chosen[0]));
    }
    let world = World::new(3, &tasks, vec![Service { tasks: (0..6).collect(), ..Service::default() }]);
    let differ = (1000..1100).any(|port| {
        let to = |node| {
            world.both_ways(outside(node), TCP, SYN, client(false, port), at(own(node, false), 8000)).0
        };
        to(0) != to(1)
    });
    assert!(differ, "otherwise each has a seed of its own");
}

/// The table is full of flows that count: a new one is balanced all the same, and if answers to it cannot be
/// remembered with its own port, then with another.
#[test]
fn a_full_table_refuses_nobody_who_can_be_served() {
    let services = vec![Service { tasks: vec![0], ..Service::default() }];
    let world = World::with_tables(1, &[0], services, 64);
    let mut changed = 0;
    let mut lost = 0;
    for port in 1000..1200 {
        let (src, dst) = (client(false, port), at(own(0, false), 8000));
        match world.send(OUTSIDE, TCP, SYN, src, dst) {
            End::At(Who::Task(0), seen, to) => {
                // In a table as small as this, one of a flow's entries may take the place of the other.
                if world.send(Who::Task(0), TCP, SYN | ACK, to, seen) == End::Passed {
                    lost += 1;
                    continue;
                }
                changed += u32::from(seen != src);
                // From now on both entries count.
                world.send(OUTSIDE, TCP, ACK, src, dst);
                world.answer(0, TCP, ACK, (seen, to), (OUTSIDE, src, dst));
            }
            other => {
                assert_eq!(other, End::Dropped(Event::PortsExhausted));
                lost += 1;
            }
        }
    }
    assert!(changed > 0 && world.nodes[0].counted(Event::TableFull) > 0);
    assert!(lost < 100, "{lost}");
    // A node that only tunnels needs no entry for answers: it serves all.
    let services = vec![Service { tasks: vec![0], ..Service::default() }];
    let mut world = World::with_tables(2, &[1], services.clone(), 1024);
    world.nodes[0] = Node::new(0, 2);
    world.write();
    for port in 1000..1100 {
        let (src, dst) = (client(false, port), at(own(0, false), 8000));
        for flags in [SYN, ACK] {
            let end = world.send(OUTSIDE, TCP, flags, src, dst);
            assert_eq!(end, End::At(Who::Task(0), src, at(task(1, 0, false), 8000)));
        }
    }
    assert_eq!(world.nodes[0].entries(TCP).len(), 8);
}

/// How many flows a backend has changes from packet to packet: what is not remembered cannot go by that.
#[test]
fn where_a_table_is_full_the_hash_chooses_for_least_conn_too() {
    let least = Service { tasks: (0..4).collect(), flags: Frontend::LEAST, ..Service::default() };
    let mut world = World::new(2, &[1; 4], vec![least]);
    world.nodes[0] = Node::new(0, 1);
    world.write();
    let dst = at(own(0, false), 8000);
    let send = |port, flags| match world.send(OUTSIDE, TCP, flags, client(false, port), dst) {
        End::At(Who::Task(task), ..) => task,
        other => panic!("{other:?}"),
    };
    for port in 1..5 {
        assert_eq!([SYN, ACK, ACK].map(|flags| send(port, flags)), [send(port, ACK); 3]);
    }
    for port in 1000..1100 {
        let task = send(port, SYN);
        for flags in [ACK, FIN | ACK] {
            world.nodes[0].more_active(backend(task, false), 1);
            assert_eq!(send(port, flags), task);
        }
    }
    assert_eq!(world.nodes[0].counted(Event::TableFull), 300);
}
