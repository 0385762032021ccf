//! Names for addresses and ports.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "sim/mod.rs"]
mod sim;

use std::net::IpAddr;
use std::time::Duration;

use mesh_core::change::{self, AttachmentRequest, NetworkRequest, ServiceRequest};
use mesh_core::model::{Affinity, Balancing, EndpointMode, Locality, Protocol, PublishMode, PublishedPort};
use mesh_core::whois::Whois;
use sim::Sim;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(published: u16, host_ip: &[&str], nodes: &[&str]) -> PublishedPort {
    PublishedPort {
        published,
        target: 80,
        protocol: Protocol::Tcp,
        mode: PublishMode::Ingress,
        host_ip: host_ip.iter().map(|text| ip(text)).collect(),
        nodes: nodes.iter().map(|name| name.parse().unwrap()).collect(),
        allow: Vec::new(),
    }
}

#[test]
fn addresses_and_ports_have_names() {
    let mut sim = Sim::new();
    let me = sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let network = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, network.clone(), fresh)).unwrap();
    let mut service = |name: &str, ports: Vec<PublishedPort>| {
        let networks = vec![AttachmentRequest { network: "app".to_owned(), aliases: Vec::new() }];
        let request = ServiceRequest {
            name: name.to_owned(),
            networks,
            mode: EndpointMode::Vip,
            ports,
            balancing: Balancing::Random,
            affinity: Affinity::None,
            locality: Locality::Spread,
            drain_timeout: Duration::from_secs(30),
            return_path: Default::default(),
            idle_timeout: None,
            discovery: Default::default(),
            slow_start: Default::default(),
            passive_health: true,
            health: Default::default(),
            program: Default::default(),
            labels: Default::default(),
        };
        sim.change(|world, fresh| change::create_service(world, request.clone(), fresh)).unwrap()
    };
    service("web", vec![port(8080, &[], &[]), port(81, &["192.0.2.1"], &[])]);
    service("other", vec![port(81, &["192.0.2.9"], &[]), port(82, &[], &["n2"])]);
    sim.claim_blocks();
    let task = sim.task("web", "n2").unwrap();
    let world = sim.world();
    let whois = Whois::of(world, &me);
    let name = |address, port| whois.service(Protocol::Tcp, address, port).map(|name| name.as_str());
    assert_eq!(name(ip("192.0.2.1"), 8080), Some("web"));
    assert_eq!(name(ip("127.0.0.1"), 8080), Some("web"));
    assert_eq!((name(ip("192.0.2.1"), 81), name(ip("192.0.2.9"), 81)), (Some("web"), Some("other")));
    assert_eq!((name(ip("192.0.2.7"), 81), name(ip("192.0.2.1"), 82)), (None, None));
    assert_eq!(whois.service(Protocol::Udp, ip("192.0.2.1"), 8080), None);
    let vip = world.service("web").unwrap().networks[0].vip.unwrap();
    assert_eq!(name(IpAddr::V4(vip.v4), 12345), Some("web"));
    let (network, address) = task.addresses.iter().next().unwrap();
    let owner = whois.task(world.networks[network].vni, IpAddr::V4(address.v4)).unwrap();
    assert_eq!((owner.task.as_str(), owner.node.as_str(), owner.network.as_str()), ("web.1", "n2", "app"));
    assert_eq!(whois.node(ip("192.0.2.2")).map(|name| name.as_str()), Some("n2"));
}
