//! Packets that nobody thought of.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use mesh_ebpf::verdict::Action;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::frame::{ETH, ICMP, ICMP6, TCP, UDP, frame};
use crate::life::{at, client};
use crate::node::Hook;
use crate::world::{Service, UPLINK, World, device, inside, own, task, vip};

/// Addresses, most of them such as come in by a hook.
fn address(v6: bool, likely: Vec<IpAddr>) -> impl Strategy<Value = IpAddr> {
    let known =
        vec![own(0, v6), own(1, v6), inside(0, v6), task(0, 0, v6), task(1, 1, v6), vip(0, v6), vip(1, v6)];
    let special = if v6 {
        ["::1", "::", "ff02::1", "fe80::1"]
    } else {
        ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"]
    };
    let special: Vec<IpAddr> = special.iter().map(|text| text.parse().expect("an address")).collect();
    let any = any::<u128>();
    let any =
        any.prop_map(move |bits| if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) });
    prop_oneof![
        12 => prop::sample::select(likely),
        2 => prop::sample::select(known),
        1 => prop::sample::select(special),
        1 => any,
    ]
}

/// Source and destination.
fn ends(hook: Hook, v6: bool) -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let vips = [vip(0, v6), vip(1, v6), vip(2, v6)];
    let (src, dst) = match hook {
        Hook::Task(_) => {
            (vec![task(0, 0, v6)], [vips.as_slice(), &[own(0, v6), client(v6, 0).ip()]].concat())
        }
        Hook::Net(_) => (vec![client(v6, 0).ip()], vec![own(0, v6)]),
        Hook::Host => (vec![own(0, v6), inside(0, v6)], [vips.as_slice(), &[own(0, v6)]].concat()),
    };
    let end = |likely| (address(v6, likely), port()).prop_map(|(ip, port)| at(ip, port));
    (end(src), end(dst))
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![4 => prop::sample::select(vec![80, 443, 5000, 5001, 8000, 8001, 8002]), 1 => any::<u16>()]
}

fn hook() -> impl Strategy<Value = Hook> {
    prop::sample::select(vec![Hook::Task(device(0)), Hook::Net(UPLINK), Hook::Host])
}

/// A packet with right checksums, and what is then done to it: bytes that are changed, and where it is cut off.
fn packet(hook: Hook) -> impl Strategy<Value = (Hook, Vec<u8>)> {
    let ends = any::<bool>().prop_flat_map(move |v6| {
        let protos = vec![TCP, TCP, UDP, if v6 { ICMP6 } else { ICMP }];
        (ends(hook, v6), prop::sample::select(protos))
    });
    let flags = prop_oneof![prop::sample::select(vec![2_u8, 16, 17, 4, 8, 8, 128, 128]), any::<u8>()];
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    let wrong =
        prop_oneof![5 => Just(Vec::new()), 1 => prop::collection::vec((14_usize..80, any::<u8>()), 1..4)];
    let cut = prop_oneof![9 => Just(usize::MAX), 1 => 34_usize..80];
    (ends, flags, payload, wrong, cut).prop_map(move |(((src, dst), proto), flags, payload, wrong, cut)| {
        let mut bytes = frame(proto, flags, src, dst, &payload);
        for (place, value) in wrong {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        // The kernel runs no program for a test on less than an IP header.
        bytes.truncate(cut.max(ETH + if src.is_ipv4() { 20 } else { 40 }));
        (hook, bytes)
    })
}

/// Whatever comes, the programs do as the pipeline says: in verdict, bytes and counters, and in the end in flows.
#[test]
fn programs_do_what_the_pipeline_says() {
    let service = |tasks: &[usize]| Service { tasks: tasks.to_vec(), ..Service::default() };
    let sticky = Service { affinity: 100, ..service(&[0, 1]) };
    let mut world = World::new(2, &[0, 1], &[service(&[0, 1]), sticky, Service::default()]);
    let node = &mut world.nodes[0];
    let packets = prop::collection::vec(hook().prop_flat_map(packet), 1..20);
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    let (node, counts) = (RefCell::new(node), RefCell::new([0; 5]));
    TestRunner::new(config)
        .run(&packets, |packets| {
            for (hook, bytes) in packets {
                let kind = match node.borrow_mut().run(hook, &bytes).action {
                    Action::Pass => 0,
                    Action::Send(_) => 1,
                    Action::Refuse(_) => 2,
                    Action::Drop(_) => 3,
                    Action::Echo => 4,
                };
                counts.borrow_mut()[kind] += 1;
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
    println!("passed, sent, refused, dropped, echoed: {counts:?}");
    assert!(counts.borrow().iter().all(|count| *count > 20), "{counts:?}");
    world.agree();
}
