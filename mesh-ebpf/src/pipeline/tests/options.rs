//! What a service may wish: how answers return, who gets a flow, how long one may be idle; and a second chance.

use std::net::SocketAddr;

use super::life::{OUTSIDE, at, client};
use super::world::{End, Service, VNI, Who, World, device, inside, mac, own, task, vip};
use crate::abi::{Frontend, TCP, Timeouts, UDP};
use crate::flow::{Head, Role};
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::pipeline;
use crate::testing::tcp;
use crate::tunnel::Tag;
use crate::verdict::{Action, Event, Refusal, To, Verdict};

/// A service with tasks on these nodes of three.
fn with(flags: u16, nodes: &[usize]) -> World {
    let service = Service { tasks: (0..nodes.len()).collect(), target: 80, flags, ..Service::default() };
    World::with_tables(3, nodes, vec![service], 1 << 13)
}

fn to_port(v6: bool) -> SocketAddr {
    at(own(0, v6), 8000)
}

#[test]
fn answers_go_straight_to_the_client_where_that_is_wished() {
    for (v6, proto) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let world = with(Frontend::DSR, &[1]);
        let (src, dst) = (client(v6, 1000), to_port(v6));
        for flags in [SYN, ACK, ACK, ACK | FIN] {
            let seen = at(task(1, 0, v6), 80);
            assert_eq!(world.send(OUTSIDE, proto, flags, src, dst), End::At(Who::Task(0), src, seen));
            // Out of the task's own node by whichever device leads there, from the address that the client knows.
            let out = Who::Net { node: 1, device: 0 };
            assert_eq!(world.send(Who::Task(0), proto, flags | ACK, seen, src), End::At(out, dst, src));
            world.pass(9);
        }
        // A task on the node itself, and clients within the mesh, have no shorter way.
        with(Frontend::DSR, &[0]).both_ways(OUTSIDE, proto, SYN, src, dst);
        let world = with(Frontend::DSR, &[1, 0]);
        for port in 1000..1010 {
            let src = |port| at(task(0, 1, v6), port);
            world.both_ways(Who::Task(1), proto, SYN, src(port), dst);
            world.both_ways(Who::Task(1), proto, SYN, src(port + 10), at(vip(0, v6), 80));
        }
    }
}

#[test]
fn tasks_elsewhere_see_the_node_where_that_is_wished() {
    for (v6, proto) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let world = with(Frontend::SNAT, &[1]);
        // Several clients, and all with one port.
        let of = |host: u16| {
            let ip = if v6 { format!("2001:db8::{host:x}") } else { format!("192.0.2.{host}") };
            at(ip.parse().unwrap(), 1000)
        };
        let mut seen = Vec::new();
        for flags in [SYN, ACK, ACK] {
            for host in 1..=4 {
                let (_, by, own) = world.both_ways(OUTSIDE, proto, flags, of(host), to_port(v6));
                assert_eq!((by.ip(), own), (inside(0, v6), at(task(1, 0, v6), 80)));
                seen.push(by);
            }
            world.pass(9);
        }
        for host in 0..4 {
            assert!(seen[host] == seen[host + 4] && seen[host] == seen[host + 8], "{seen:?}");
            assert!((0..host).all(|other| seen[other] != seen[host]), "{seen:?}");
        }
        // Whoever is kept is kept whole: both entries are as old.
        let entries = world.nodes[0].entries(proto);
        let now = world.nodes[0].now.get();
        for role in [Role::Reply, Role::Origin] {
            let of_role: Vec<_> = entries.iter().filter(|entry| Head(entry.head).is(role)).collect();
            assert_eq!(of_role.len(), 4);
            assert!(of_role.iter().all(|entry| Head(entry.head).age(now) <= 18));
        }
        // Here it need not be.
        let (src, seen) = (client(v6, 7), with(Frontend::SNAT, &[0]));
        assert_eq!(seen.both_ways(OUTSIDE, proto, SYN, src, to_port(v6)).1, src);
    }
}

/// The task's node knows first that the task is gone.
#[test]
fn what_begins_at_a_task_that_has_just_left_gets_another() {
    for (v6, proto) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let mut world = with(0, &[1, 2, 1]);
        world.nodes[1].endpoints.remove(&device(0));
        let mut chosen = [0; 3];
        for port in 1000..1064 {
            let src = client(v6, port);
            let (first, ..) = world.both_ways(OUTSIDE, proto, SYN, src, to_port(v6));
            chosen[first] += 1;
            assert_eq!(world.both_ways(OUTSIDE, proto, ACK, src, to_port(v6)).0, first, "it stays");
        }
        assert!(chosen[0] == 0 && chosen[1] > 16 && chosen[2] > 16, "{chosen:?}");
        assert!(world.nodes[1].counted(Event::Returned) > 8);
        assert_eq!(world.nodes[0].counted(Event::NewFlow), 64);
        // The others have left, too: once is enough.
        world.nodes[1].endpoints.clear();
        world.nodes[2].endpoints.clear();
        let end = world.send(OUTSIDE, proto, SYN, client(v6, 2000), to_port(v6));
        assert_eq!(end, End::Refused(Refusal::Closed));
        // Alone it had nobody beside it.
        let mut world = with(0, &[1]);
        world.both_ways(OUTSIDE, proto, SYN, client(v6, 1), to_port(v6));
        world.nodes[1].endpoints.clear();
        for flags in [ACK, SYN] {
            let end = world.send(OUTSIDE, proto, flags, client(v6, 1), to_port(v6));
            assert_eq!(end, End::Refused(Refusal::Closed));
        }
    }
}

/// What is translated before it is sent has the same second chance: by VIP from a task and from the node, by its
/// localhost, and with the node's own address instead of the client's.
#[test]
fn what_begins_at_a_task_that_has_just_left_gets_another_also_when_it_is_translated() {
    for (v6, proto) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let local = at(if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap(), 1);
        let ways = [
            (0, Who::Task(3), at(task(0, 3, v6), 1), at(vip(0, v6), 80)),
            (0, Who::Stack(0), at(inside(0, v6), 1), at(vip(0, v6), 80)),
            (0, Who::Stack(0), local, at(local.ip(), 8000)),
            (Frontend::SNAT, OUTSIDE, client(v6, 1), to_port(v6)),
        ];
        for (flags, who, src, dst) in ways {
            let service = Service { tasks: vec![0, 1, 2], target: 80, flags, ..Service::default() };
            let new = || World::with_tables(3, &[1, 2, 1, 0], vec![service.clone()], 1 << 13);
            let from = |port| SocketAddr::new(src.ip(), port);
            let mut world = new();
            world.nodes[1].endpoints.remove(&device(0));
            let mut chosen = [0; 3];
            for port in 1000..1064 {
                let (first, ..) = world.both_ways(who, proto, SYN, from(port), dst);
                chosen[first] += 1;
                assert_eq!(world.both_ways(who, proto, ACK, from(port), dst).0, first, "it stays");
            }
            assert!(chosen[0] == 0 && chosen[1] > 16 && chosen[2] > 16, "{who:?}: {chosen:?}");
            assert!(world.nodes[1].counted(Event::Returned) > 8);
            assert_eq!(world.nodes[0].counted(Event::NewFlow), 64);

            // It was known: a datagram goes elsewhere, and so does a connection that begins once more.
            let mut world = new();
            let port =
                (1000..).find(|port| world.both_ways(who, proto, SYN, from(*port), dst).0 == 0).unwrap();
            world.nodes[1].endpoints.remove(&device(0));
            let (other, ..) = world.both_ways(who, proto, SYN, from(port), dst);
            assert_ne!(other, 0);
            assert_eq!(world.both_ways(who, proto, ACK, from(port), dst).0, other);
            // Those who have the task's place in the network now are not asked again: its node's kernel says no.
            world.nodes[1].endpoints.clear();
            world.nodes[2].endpoints.clear();
            let before = world.nodes[1].counted(Event::Returned) + world.nodes[2].counted(Event::Returned);
            assert!(matches!(world.send(who, proto, SYN, from(2000), dst), End::At(Who::Task(_), ..)));
            let after = world.nodes[1].counted(Event::Returned) + world.nodes[2].counted(Event::Returned);
            assert_eq!(after, before + 1, "once is enough");
        }
    }
}

/// A task's device goes before its node's maps know: what begins is sent there by the program all the same, so that it is
/// lost and comes again. The kernel would say that there is no such host.
#[test]
fn what_begins_at_a_task_is_given_to_its_device() {
    let world = with(0, &[1, 2]);
    let from = |mac, vni| {
        let mut packet = tcp("10.0.0.4:1", "10.0.1.1:80", SYN).packet();
        let macs = [[2, 9, 9, 9, 9, 1], mac];
        let verdict = pipeline::from_mesh(&world.nodes[1], &mut packet, 1, Tag::Network(vni).vni(), macs);
        (verdict, verdict.action(&packet.hop))
    };
    let mac = mac(0);
    let to_task = To::Task { device: device(0), mac };
    assert_eq!(from(mac, VNI), (Verdict::SEND, Action::Send(to_task)));
    // Another node's kernel sent it, as one task's to another.
    assert_eq!(from([2, 9, 9, 9, 9, 0], VNI).0, Verdict::PASS);
    // Whoever is in another network does not get there.
    assert!(matches!(from(mac, VNI + 1).1, Action::Send(To::Peer { tag: Tag::Returned, .. })));
}

/// What comes back though nobody sent it, or after its service has gone, is lost.
#[test]
fn what_comes_back_to_nobody_is_dropped() {
    let world = with(0, &[1, 2]);
    let back = |src: SocketAddr, dst: SocketAddr| {
        let mut packet = tcp(&src.to_string(), &dst.to_string(), SYN).packet();
        let before = packet.tuple;
        let macs = [[2, 9, 9, 9, 9, 0], [2, 9, 9, 9, 9, 1]];
        let verdict = pipeline::from_mesh(&world.nodes[0], &mut packet, 2, Tag::Returned.vni(), macs);
        assert_eq!(packet.tuple, before);
        verdict
    };
    let gone = Verdict::drop(Event::BackendGone);
    assert_eq!(back(at(task(0, 5, false), 1), at(task(1, 0, false), 80)), gone);
    assert_eq!(back(client(false, 1), at(own(0, false), 9)), gone);
}

#[test]
fn new_flows_go_to_whoever_has_the_fewest() {
    for path in [&[0, 0, 0], &[1, 1, 1], &[0, 1, 2]] {
        let world = with(Frontend::LEAST, path);
        let open = |port| world.both_ways(OUTSIDE, TCP, SYN, client(false, port), to_port(false)).0;
        let mut flows: [Vec<u16>; 3] = Default::default();
        for port in 1000..1300 {
            flows[open(port)].push(port);
        }
        assert!(
            flows.iter().all(|ports| (97..=103).contains(&ports.len())),
            "hardly more than a hundred each"
        );
        // One loses half of its flows, half of those by the client's wish.
        for (index, port) in flows[1].drain(..50).enumerate() {
            let (src, dst) = (client(false, port), to_port(false));
            let (known, seen, own) = world.both_ways(OUTSIDE, TCP, ACK, src, dst);
            if index % 2 == 0 {
                world.send(OUTSIDE, TCP, RST, src, dst);
                world.send(OUTSIDE, TCP, RST, src, dst);
            } else {
                world.answer(known, TCP, FIN | ACK, (seen, own), (OUTSIDE, src, dst));
            }
        }
        let next: Vec<usize> = (2000..2040).map(open).collect();
        // Of four slots, each of any of three, one is its own for four flows of five.
        assert!(next.iter().filter(|task| **task == 1).count() > 26, "{next:?}");
        // Its weight is asked, too.
        let mut world = with(Frontend::LEAST, path);
        for node in &mut world.nodes {
            node.backends[1].weight = 3;
        }
        let mut flows = [0; 3];
        for port in 1000..1300 {
            flows[world.both_ways(OUTSIDE, TCP, SYN, client(false, port), to_port(false)).0] += 1;
        }
        assert!((170..=185).contains(&flows[0]), "three fifths: {flows:?}");
    }
}

#[test]
fn a_flow_is_remembered_for_as_long_as_its_service_wishes() {
    let step = Timeouts::step(3600);
    for (node, proto) in [(0, TCP), (0, UDP), (1, TCP), (1, UDP)] {
        let mut world = with((step as u16) << Frontend::IDLE, &[node, 2]);
        let port = (1000..)
            .find(|port| world.both_ways(OUTSIDE, proto, SYN, client(false, *port), to_port(false)).0 == 0);
        let src = client(false, port.unwrap());
        world.both_ways(OUTSIDE, proto, ACK, src, to_port(false));
        for entry in world.nodes[..2].iter().flat_map(|node| node.entries(proto)) {
            assert_eq!(Head(entry.head).idle(), step, "{entry:?}");
        }
        // Others come and go, and it drains; it stays until its time is over.
        world.tasks[0].state = crate::abi::BackendState::Draining;
        world.write();
        world.pass(3500);
        assert_eq!(world.both_ways(OUTSIDE, proto, ACK, src, to_port(false)).0, 0);
        world.pass(3700);
        let again = if proto == TCP { SYN } else { 0 };
        assert_eq!(world.both_ways(OUTSIDE, proto, again, src, to_port(false)).0, 1);
    }
}

/// While flows are on their way from other maps, nothing is made of segments whose flow may be one of them.
#[test]
fn what_may_be_of_a_flow_that_is_to_come_is_lost() {
    for node in [0, 1] {
        let mut world = with(0, &[node]);
        let (src, dst, served) = (client(false, 41_000), to_port(false), at(task(node, 0, false), 80));
        let moving = |world: &mut World, moving| {
            world.nodes.iter_mut().for_each(|node| node.config.moving = moving);
        };
        moving(&mut world, 1);
        let lost = End::Dropped(Event::Moving);
        assert_eq!(world.send(OUTSIDE, TCP, ACK, src, dst), lost);
        for flags in [SYN | ACK, ACK, ACK | FIN] {
            assert_eq!(world.send(Who::Task(0), TCP, flags, served, src), lost);
        }
        // Datagrams do not come again, and what begins a flow belongs to none.
        assert_eq!(world.send(Who::Task(0), UDP, 0, served, src), End::Passed);
        assert_eq!(world.both_ways(OUTSIDE, TCP, SYN, src, dst).0, 0);
        world.both_ways(OUTSIDE, TCP, ACK, src, dst);
        moving(&mut world, 0);
        assert_eq!(world.send(Who::Task(0), TCP, ACK, served, client(false, 41_001)), End::Passed);
    }
}
