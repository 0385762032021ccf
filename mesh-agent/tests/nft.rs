//! The nft plane on the real kernel, with real traffic between network namespaces. Needs root, `ip`,
//! `nsenter` and `nft`; without them it fails.

#![expect(clippy::unwrap_used, reason = "a test that panics fails, which is what it is for")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_agent::plane::{Depth, Plane};
use mesh_core::model::{Affinity, Balancing, Protocol, Vni};
use mesh_core::plan::{Family, Frontend};

#[path = "nft/lab.rs"]
mod lab;
#[path = "nft/plan.rs"]
mod plan;
#[path = "nft/repair.rs"]
mod repair;

use lab::{CLIENT, Lab, NODE, Ns, VIP, VIP6, udp_ask};
use plan::*;

#[test]
fn a_vip_spreads_every_port_of_both_protocols_by_weight() {
    let lab = Lab::new();
    let mut plan = plan();
    vip(&mut plan, VIP, &["10.10.1.2", "10.10.1.3"]);
    vip(&mut plan, VIP6, &["fd10::1:2", "fd10::1:3"]);
    let mut plane = apply(&lab.node, &plan);
    for to in ["10.10.0.5:80", "10.10.0.5:81", "[fd10::5]:80"] {
        let seen = names((0..40).map(|_| lab.a.tcp(to).unwrap()));
        assert_eq!(seen.len(), 2, "{to}: {seen:?}");
    }
    for to in ["10.10.0.5:53", "[fd10::5]:53"] {
        let seen = names((0..40).map(|_| lab.a.udp(to).unwrap()));
        assert_eq!(seen.len(), 2, "{to}: {seen:?}");
    }
    // The node itself, and who the task takes it for.
    assert!(lab.node.tcp("10.10.0.5:80").unwrap().ends_with(" 10.10.1.1"));
    lab.node.tcp("[fd10::5]:80").unwrap();
    // A port that the tasks do not serve: they say so.
    refused(|| lab.a.tcp("10.10.0.5:82"));

    let at = Frontend::Vip { vni: APP, address: VIP.parse().unwrap() };
    Arc::make_mut(&mut behind(&mut plan, &at).backends)[0].weight = 9;
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 1);
    let seen = names((0..100).map(|_| lab.b.tcp("10.10.0.5:80").unwrap()));
    assert!(seen["a"] > 75 && seen.get("b").is_some_and(|b| *b > 0), "9 to 1: {seen:?}");
}

#[test]
fn a_vip_reaches_tasks_of_other_nodes_and_a_task_itself() {
    let lab = Lab::new();
    let mut plan = plan();
    vip(&mut plan, VIP, &["10.10.2.2"]);
    let mut plane = apply(&lab.node, &plan);
    assert_eq!(lab.a.tcp("10.10.0.5:80").unwrap(), "remote 10.10.1.2", "within a network sources stay");
    assert_eq!(lab.node.tcp("10.10.0.5:80").unwrap(), "remote 10.10.1.1");
    vip(&mut plan, VIP, &["10.10.1.2"]);
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    assert_eq!(lab.a.tcp("10.10.0.5:80").unwrap(), "a 10.10.1.1", "a task to itself");
    assert_eq!(lab.a.udp("10.10.0.5:53").unwrap(), "a 10.10.1.1");
    assert_eq!(lab.remote.tcp("10.10.1.2:80").unwrap(), "a 10.10.2.2", "and directly, by the tunnel");
}

#[test]
fn a_published_port_is_reached_from_everywhere_and_keeps_the_client_where_it_can() {
    let lab = Lab::new();
    let mut plan = plan();
    publish(&mut plan, Protocol::Tcp, 8080, &["10.10.1.2"]);
    publish(&mut plan, Protocol::Udp, 5300, &["10.10.1.2"]);
    publish(&mut plan, Protocol::Tcp, 8081, &["10.10.2.2"]);
    publish(&mut plan, Protocol::Tcp, 8082, &["10.30.1.2"]);
    publish(&mut plan, Protocol::Tcp, 8080, &["fd10::1:2"]);
    publish(&mut plan, Protocol::Tcp, 8081, &["fd10::2:2"]);
    let one = published(Protocol::Tcp, 8090, Some(NODE), Family::V4);
    plan.frontends.insert(one, pool(Some(80), &["10.10.1.3"]).into());
    let loopback = published(Protocol::Tcp, 8091, Some("127.0.0.1"), Family::V4);
    plan.frontends.insert(loopback, pool(Some(80), &["10.10.1.3"]).into());
    // A VIP has its own port 8080: it is not the node's.
    vip(&mut plan, VIP, &["10.10.1.3"]);
    lab.b.serve_tcp("b at 8080", "0.0.0.0:8080");
    apply(&lab.node, &plan);
    let says = |who: &Ns, to: &str| who.tcp(to).unwrap_or_else(|error| panic!("{to}: {error}"));

    assert_eq!(
        says(&lab.client, "203.0.113.1:8080"),
        format!("a {CLIENT}"),
        "local: the client's own address"
    );
    assert_eq!(lab.client.udp("203.0.113.1:5300").unwrap(), format!("a {CLIENT}"));
    assert_eq!(says(&lab.client, "203.0.113.1:8081"), "remote 10.10.1.1", "by way of the tunnel");
    assert_eq!(says(&lab.client, "203.0.113.1:8082"), "inner 10.30.1.1", "has no route to the client");
    assert_eq!(says(&lab.client, "203.0.113.1:8090"), format!("b {CLIENT}"));
    assert_eq!(says(&lab.client, "[fd99::1]:8080"), "a fd99::9");
    assert_eq!(says(&lab.client, "[fd99::1]:8081"), "remote fd10::1:1");
    // The node itself.
    assert_eq!(says(&lab.node, "127.0.0.1:8080"), "a 10.10.1.1");
    assert_eq!(says(&lab.node, "127.0.0.1:8081"), "remote 10.10.1.1");
    assert_eq!(says(&lab.node, "127.0.0.1:8082"), "inner 10.30.1.1");
    assert_eq!(says(&lab.node, "127.0.0.1:8091"), "b 10.10.1.1");
    assert_eq!(lab.node.udp("127.0.0.1:5300").unwrap(), "a 10.10.1.1");
    assert_eq!(says(&lab.node, "203.0.113.1:8080"), format!("a {NODE}"));
    assert_eq!(says(&lab.node, "203.0.113.1:8081"), "remote 10.10.1.1");
    assert_eq!(says(&lab.node, "[fd99::1]:8080"), "a fd99::1");
    refused(|| lab.node.tcp("[::1]:8080"));
    // Tasks: in the same network, itself, in others.
    assert_eq!(says(&lab.b, "203.0.113.1:8080"), "a 10.10.1.3");
    assert_eq!(says(&lab.a, "203.0.113.1:8080"), "a 10.10.1.1");
    assert_eq!(says(&lab.a, "203.0.113.1:8081"), "remote 10.10.1.2");
    assert_eq!(says(&lab.other, "203.0.113.1:8080"), "a 10.10.1.1");
    assert_eq!(says(&lab.other, "203.0.113.1:8081"), "remote 10.10.1.1");
    assert_eq!(says(&lab.other, "203.0.113.1:8082"), "inner 10.30.1.1");
    // Our own addresses publish nothing.
    assert_eq!(says(&lab.a, "10.10.0.5:8080"), "b at 8080 10.10.1.2", "the VIP first");
    refused(|| lab.a.tcp("10.10.1.1:8080"));
    refused(|| lab.client.tcp("203.0.113.1:8091"));
}

#[test]
fn without_backends_it_is_refused_at_once() {
    let lab = Lab::new();
    let mut plan = plan();
    vip(&mut plan, VIP, &["10.10.1.3"]);
    publish(&mut plan, Protocol::Tcp, 8080, &["10.10.1.3"]);
    publish(&mut plan, Protocol::Udp, 5300, &["10.10.1.3"]);
    let mut plane = apply(&lab.node, &plan);
    let mut running =
        [lab.a.connect("10.10.0.5:80").unwrap(), lab.client.connect("203.0.113.1:8080").unwrap()];

    plan.frontends.values_mut().for_each(|pool| Arc::make_mut(pool).backends = [].into());
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    for who in [&lab.a, &lab.node] {
        refused(|| who.tcp("10.10.0.5:80"));
        refused(|| who.udp("10.10.0.5:53"));
    }
    for who in [&lab.client, &lab.node, &lab.a] {
        refused(|| who.tcp("203.0.113.1:8080"));
        refused(|| who.udp("203.0.113.1:5300"));
    }
    // A backend that leaves finishes what it began; of one that is gone nothing goes on.
    assert!(running.iter_mut().all(lab::Talk::alive));
    plan.sites.remove(&(APP, "10.10.1.3".parse().unwrap()));
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    assert!(!running.iter_mut().any(lab::Talk::alive));
}

#[test]
fn networks_are_isolated() {
    let lab = Lab::new();
    let mut plan = plan();
    vip(&mut plan, VIP, &["10.10.1.3"]);
    publish(&mut plan, Protocol::Tcp, 8080, &["10.10.1.3"]);
    let mut plane = apply(&lab.node, &plan);
    assert_eq!(lab.a.tcp("10.10.1.3:80").unwrap(), "b 10.10.1.2", "within a network");
    assert_eq!(lab.a.tcp("[fd10::1:3]:80").unwrap(), "b fd10::1:2");
    assert_eq!(lab.a.tcp("10.10.2.2:80").unwrap(), "remote 10.10.1.2");
    // Another network's tasks, VIPs and gateways.
    for to in ["10.10.1.2:80", "10.10.2.2:80", "10.10.0.5:80", "10.10.1.1:80", "10.30.1.2:80"] {
        refused(|| lab.other.tcp(to));
    }
    refused(|| lab.other.udp("10.10.1.2:53"));
    // What is not published, from outside.
    for to in ["10.10.1.2:80", "10.10.0.5:80", "10.10.2.2:80", "10.10.1.1:80"] {
        refused(|| lab.client.tcp(to));
    }
    refused(|| lab.client.udp("10.10.1.2:53"));
    // The tunnel leads neither out of a network nor into one.
    lab.remote.sh("ip addr add 10.20.9.9/32 dev eth0; ip route add default via 169.254.1.1");
    lab.node
        .sh("ip route add 10.20.9.9/32 dev mesh0; ip neigh add 10.20.9.9 lladdr 02:54:00:00:00:01 dev mesh0");
    dropped(|| lab.remote.tcp("203.0.113.1:8080"));
    dropped(|| lab.remote.udp_as("10.20.9.9", "10.10.1.2:53"));
    assert_eq!(lab.remote.udp_as("10.20.9.9", "10.20.1.2:53").unwrap(), "other 10.20.9.9");
    // Sources that are not one's own.
    lab.a.sh("ip addr add 10.10.1.77/32 dev eth0");
    lab.node.sh("ip route add 10.10.1.77/32 dev mesh00000000001; \
                 ip neigh add 10.10.1.77 lladdr 02:54:00:00:00:01 dev mesh00000000001");
    dropped(|| lab.a.udp_as("10.10.1.77", "10.10.1.3:53"));
    lab.client.sh("ip addr add 10.10.1.2/32 dev eth0");
    dropped(|| lab.client.udp_as("10.10.1.2", "203.0.113.1:8080"));
    // The node's loopback, for a task that makes the packets.
    lab.node.serve_tcp("node", "127.0.0.1:99");
    lab.a.sh("ip addr flush dev lo; ip route flush table local 127.0.0.0/8; \
              echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route add 127.0.0.0/8 via 169.254.1.1");
    dropped(|| lab.a.tcp("127.0.0.1:99"));
    lab.node.inside(|| runtime().block_on(plane.remove_all()));
    assert_eq!(lab.a.tcp("127.0.0.1:99").unwrap(), "node 10.10.1.2", "only the rules kept it out");
}

#[test]
fn tasks_reach_the_world_unless_their_network_is_internal() {
    let lab = Lab::new();
    lab.node.serve_tcp("node", "0.0.0.0:99");
    let mut plan = plan();
    publish(&mut plan, Protocol::Tcp, 8080, &["10.30.1.2"]);
    let mut plane = apply(&lab.node, &plan);
    assert_eq!(lab.a.tcp("203.0.113.9:80").unwrap(), format!("world {NODE}"));
    assert_eq!(lab.a.tcp("[fd99::9]:80").unwrap(), "world fd99::1");
    assert_eq!(lab.a.tcp("203.0.113.1:99").unwrap(), "node 10.10.1.2", "the node, as any outsider");
    // Even with a route of its own making.
    lab.inner.sh("ip route add default via 169.254.1.1");
    refused(|| lab.inner.tcp("203.0.113.9:80"));
    assert_eq!(lab.client.tcp("203.0.113.1:8080").unwrap(), "inner 10.30.1.1", "published all the same");
    assert_eq!(lab.inner.tcp("203.0.113.1:8080").unwrap(), "inner 10.30.1.1");
    plan.networks.get_mut(&Vni(4098)).unwrap().egress = true;
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 3);
    assert_eq!(lab.inner.tcp("203.0.113.9:80").unwrap(), format!("world {NODE}"));
}

#[test]
fn an_allow_list_hides_a_port_from_others() {
    let lab = Lab::new();
    lab.client.sh("ip addr add 203.0.113.10/24 dev eth0");
    let mut plan = plan();
    publish(&mut plan, Protocol::Tcp, 8080, &["10.10.1.2"]);
    publish(&mut plan, Protocol::Udp, 5300, &["10.10.1.2"]);
    for pool in plan.frontends.values_mut() {
        Arc::make_mut(pool).allow =
            vec!["203.0.113.9/32".parse().unwrap(), "198.51.100.0/24".parse().unwrap()];
    }
    vip(&mut plan, VIP, &["10.10.1.2"]);
    let at = Frontend::Vip { vni: APP, address: VIP.parse().unwrap() };
    behind(&mut plan, &at).allow = vec!["10.10.1.3/32".parse().unwrap()];
    apply(&lab.node, &plan);
    assert_eq!(lab.client.tcp("203.0.113.1:8080").unwrap(), format!("a {CLIENT}"));
    assert_eq!(lab.client.udp_as(CLIENT, "203.0.113.1:5300").unwrap(), format!("a {CLIENT}"));
    refused(|| lab.client.udp_as("203.0.113.10", "203.0.113.1:5300"));
    refused(|| lab.a.tcp("203.0.113.1:8080"));
    refused(|| lab.node.tcp("127.0.0.1:8080"));
    assert_eq!(lab.b.tcp("10.10.0.5:80").unwrap(), "a 10.10.1.3");
    lab.node.serve_tcp("node", "0.0.0.0:80");
    refused(|| lab.a.tcp("10.10.0.5:80"));
}

#[test]
fn affinity_keeps_a_client_with_its_backend_and_maglev_agrees_between_nodes() {
    let (lab, twin) = (Lab::new(), Lab::new());
    let mut plan = plan();
    let backends = ["10.10.1.2", "10.10.1.3"];
    publish(&mut plan, Protocol::Tcp, 8080, &backends);
    publish(&mut plan, Protocol::Tcp, 8081, &backends);
    let sticky = behind(&mut plan, &published(Protocol::Tcp, 8080, None, Family::V4));
    sticky.affinity = Affinity::ClientIp { timeout: Duration::from_secs(60) };
    let hashed = behind(&mut plan, &published(Protocol::Tcp, 8081, None, Family::V4));
    hashed.balancing = Balancing::Maglev;
    apply(&lab.node, &plan);
    apply(&twin.node, &plan);
    for lab in [&lab, &twin] {
        let addresses: Vec<String> = (20..40).map(|n| format!("203.0.113.{n}")).collect();
        lab.client.sh(&addresses.iter().map(|a| format!("ip addr add {a}/24 dev eth0;")).collect::<String>());
    }
    let ask = |lab: &Lab, source: &str, port: u16, to: &str| {
        lab.client.inside(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&std::net::SocketAddr::new(source.parse().unwrap(), port).into()).unwrap();
            socket.connect(&to.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
            let mut greeting = String::new();
            std::io::BufRead::read_line(
                &mut std::io::BufReader::new(std::net::TcpStream::from(socket)),
                &mut greeting,
            )
            .unwrap();
            greeting.split(' ').next().unwrap().to_owned()
        })
    };
    let sources: Vec<String> = (20..40).map(|n| format!("203.0.113.{n}")).collect();
    let mut seen = BTreeSet::new();
    for source in &sources {
        let first = ask(&lab, source, 0, "203.0.113.1:8080");
        assert!((0..5).all(|_| ask(&lab, source, 0, "203.0.113.1:8080") == first));
        assert_eq!(ask(&twin, source, 0, "203.0.113.1:8080"), first, "every node picks the same");
        seen.insert(first);
    }
    assert_eq!(seen.len(), 2, "clients are spread all the same");
    let flows: Vec<_> =
        (30_000..30_040).map(|port| ask(&lab, "203.0.113.20", port, "203.0.113.1:8081")).collect();
    let twins: Vec<_> =
        (30_000..30_040).map(|port| ask(&twin, "203.0.113.20", port, "203.0.113.1:8081")).collect();
    assert_eq!(flows, twins);
    assert_eq!(flows.into_iter().collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn udp_clients_with_a_fixed_port_follow() {
    let lab = Lab::new();
    let mut plan = plan();
    lab.node.serve_udp("node", "0.0.0.0:5300");
    let mut plane = apply(&lab.node, &plan);
    let outside = lab.client.udp_client("203.0.113.1:5300");
    let stranger = lab.client.udp_client("203.0.113.1:5301");
    lab.node.serve_udp("node", "0.0.0.0:5301");
    assert_eq!(udp_ask(&outside).unwrap(), format!("node {CLIENT}"));
    assert_eq!(udp_ask(&stranger).unwrap(), format!("node {CLIENT}"));
    let flows = lab.node.sh("conntrack -L -p udp --dport 5301 -o id 2>/dev/null");

    publish(&mut plan, Protocol::Udp, 5300, &["10.10.1.2"]);
    vip(&mut plan, VIP, &["10.10.1.2"]);
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    let inside = lab.b.udp_client("10.10.0.5:53");
    for who in [&outside, &inside] {
        assert!(udp_ask(who).unwrap().starts_with("a "), "from before the port was published");
    }
    publish(&mut plan, Protocol::Udp, 5300, &["10.10.1.3", "10.10.2.2"]);
    vip(&mut plan, VIP, &["10.10.2.2"]);
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    for who in [&outside, &inside] {
        assert!(!udp_ask(who).unwrap().starts_with("a "), "its backend left");
    }
    publish(&mut plan, Protocol::Udp, 5300, &[]);
    vip(&mut plan, VIP, &[]);
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    assert_eq!(udp_ask(&outside).unwrap(), format!("node {CLIENT}"));
    refused(|| udp_ask(&inside));
    let id = |flows: &str| flows.split("id=").nth(1).map(|id| id.trim().to_owned()).unwrap();
    let now = lab.node.sh("conntrack -L -p udp --dport 5301 -o id 2>/dev/null");
    assert_eq!(id(&flows), id(&now), "a flow that is none of ours is never touched");
}
