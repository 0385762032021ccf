//! Any bytes as a question to the name server, and as an upstream's answer: what is said is no longer than the asker
//! takes, is a reply to that question, and can be read; the quick way and the other say the same.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use mesh_core::change::{
    AttachmentRequest, Fresh, NetworkRequest, ServiceRequest, create_network, create_service,
};
use mesh_core::dns::cache::Cache;
use mesh_core::dns::reply::{Manner, Verdict, decide};
use mesh_core::dns::{Zone, quick};
use mesh_core::model::*;

/// What answers over UDP have at most: by itself, as servers have it on the internet, and what nobody has less than.
const LIMITS: [u16; 4] = [8192, 1232, 512, 4096];

// What the fuzzer says: one byte of choices, then the packet.
fuzz_target!(|bytes: &[u8]| {
    let Some((choice, packet)) = bytes.split_first() else { return };
    let (zone, networks) = &*WORLD;
    let tcp = choice & 1 != 0;
    let manner = Manner { ttl: 5, udp_limit: LIMITS[usize::from(choice >> 1 & 3)] };
    let limit = if tcp { u16::MAX } else { manner.udp_limit };
    let seed = u64::from(*choice);
    let mut out = Vec::new();
    let quick = quick::answer(packet, manner, zone, networks, seed, &mut out);
    if quick.is_none() {
        assert!(out.is_empty());
    }
    match decide(packet, tcp, manner, zone, networks, seed) {
        Verdict::Ignore => assert!(quick.is_none()),
        Verdict::Reply(reply, outcome) => {
            check(packet, &reply, limit);
            if quick.is_some() && !tcp {
                assert_eq!(quick, Some(outcome));
                check(packet, &out, limit);
                // The other way compresses so many names, and writes the rest in full.
                if u16::from_be_bytes([out[6], out[7]]) < 120 {
                    assert_eq!(out, reply);
                }
            }
        }
        Verdict::Forward(asked) => {
            assert!(quick.is_none());
            let question = asked.upstream().expect("a question that was read can be written");
            // What leaves is the question and at most one more record, of a fixed size.
            assert!(question.len() <= packet.len() + 11);
            check_kept(&question, packet);
            if let Some(reply) = asked.passed_on(packet) {
                check(packet, &reply, limit);
            }
        }
    }
    check_kept(packet, packet);
});

fn check(packet: &[u8], reply: &[u8], limit: u16) {
    assert_eq!(reply[..2], packet[..2]);
    assert!(reply.len() <= usize::from(limit));
    // Who did not offer more gets no more than everybody takes.
    assert!(limit == u16::MAX || packet[11] != 0 || packet[10] != 0 || reply.len() <= 512);
}

/// Whatever is kept comes back as long as it was.
fn check_kept(question: &[u8], answer: &[u8]) {
    let (mut cache, now) = (Cache::new(1), Instant::now());
    cache.keep(question, answer, now);
    if let Some(told) = cache.get(question, now + Duration::from_millis(10)) {
        assert_eq!(told.len(), answer.len());
    }
    assert!(cache.len() <= 1);
}

/// Network `app` with the VIP service `web`; its 600 tasks do not fit into the longest answer over UDP.
static WORLD: LazyLock<(Zone, Vec<NetworkId>)> = LazyLock::new(|| {
    let mut world = Snapshot::default();
    let fresh = |number: u8| Fresh { id: [number; 16], now: 0 };
    let request = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    let network = create_network(&world, request, fresh(1)).expect("a network").result;
    world.networks.insert(network.id.clone(), network.clone().into());
    let request = ServiceRequest {
        name: "web".to_owned(),
        networks: vec![AttachmentRequest { network: "app".to_owned(), aliases: vec!["www".to_owned()] }],
        mode: EndpointMode::Vip,
        ports: Vec::new(),
        balancing: Balancing::Random,
        affinity: Affinity::None,
        locality: Locality::Spread,
        drain_timeout: Duration::ZERO,
        return_path: ReturnPath::Tunnel,
        idle_timeout: None,
        slow_start: Duration::ZERO,
        passive_health: true,
        health: Default::default(),
        discovery: Discovery {
            publish_not_ready: true,
            port_names: vec![PortName {
                name: "http".parse().expect("a name"),
                port: 80,
                protocol: Protocol::Tcp,
            }],
        },
        program: Default::default(),
        labels: Default::default(),
    };
    let service = create_service(&world, request, fresh(2)).expect("a service").result;
    let node = NodeId::new("n1");
    for slot in 1..=600u32 {
        let id = TaskId::from_random(u128::from(slot).to_be_bytes());
        let (block, place) = (16 + slot / 200, 1 + slot % 200);
        let task = Task {
            id: id.clone(),
            service: Some(service.id.clone()),
            slot,
            name: None,
            node: node.clone(),
            epoch: 1,
            addresses: [(network.id.clone(), network.address_in(Block(block), place))].into(),
            state: TaskState::Running,
            health: Health::None,
            checked: false,
            weight: 1,
            draining: false,
            message: String::new(),
            origin: Origin::Process { pid: 1, start: 1, supervised: false },
            dns: Vec::new(),
            program: None,
            ejected: None,
            packets_only: false,
            ready_since: 0,
            created: 0,
            updated: 0,
        };
        world.tasks.insert(id, task.into());
    }
    let known = Node {
        id: node.clone(),
        name: "n1".parse().expect("a name"),
        address: [192, 0, 2, 1].into(),
        vxlan_port: 4789,
        epoch: 1,
        boot: String::new(),
        uplink_mtu: 1500,
        listeners: Default::default(),
        routes: Default::default(),
        version: String::new(),
        key: String::new(),
        reflects: false,
        left: false,
        started: 0,
    };
    world.nodes.insert(node.clone(), known.into());
    world.services.insert(service.id.clone(), service.into());
    (Zone::build(&world, &node), vec![network.id])
});
