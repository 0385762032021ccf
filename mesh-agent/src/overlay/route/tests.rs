//! What is written is what is read back, for every kind of route over every underlay.

use mesh_core::model::Vni;
use rtnetlink::packet_core::{Emitable, Parseable};
use rtnetlink::packet_route::route::{RouteFlags, RouteMessage};

use super::*;

const PEER_V4: &str = "192.168.9.2";
const PEER_V6: &str = "fd99::2";

fn resolved(net: &str, route: &Route) -> Result<(Key, Path), String> {
    let devices = BTreeMap::from([(VTEP_DEVICE.to_owned(), 7), ("mesh01".to_owned(), 9)]);
    let peers = [PEER_V4, PEER_V6].map(|peer| peer.parse().unwrap()).map(|peer| (peer, Mac::of_vtep(peer)));
    resolve(net.parse().unwrap(), route, &devices, &BTreeMap::from(peers))
}

fn tunnel_to(local: &str, remote: &str, source: Option<&str>) -> Route {
    Route::Tunnel {
        vni: Vni(4096),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        source: source.map(|address| address.parse().unwrap()),
    }
}

#[test]
fn every_route_survives_the_way_to_the_kernel_and_back() {
    let endpoint = Route::Endpoint { device: "mesh01".to_owned(), source: None };
    let routes = [
        ("10.0.17.0/24", tunnel_to("192.168.9.1", PEER_V4, Some("10.0.16.1"))),
        ("10.0.17.0/24", tunnel_to("fd99::1", PEER_V6, None)),
        ("fd00::1700:0:0/88", tunnel_to("192.168.9.1", PEER_V4, Some("fd00::16:0:1"))),
        ("fd00::1700:0:0/88", tunnel_to("fd99::1", PEER_V6, None)),
        ("10.0.0.1/32", Route::Local { source: Some("10.0.16.1".parse().unwrap()) }),
        ("fd00::1/128", Route::Local { source: None }),
        ("10.0.16.2/32", endpoint.clone()),
        ("fd00::16:0:2/128", endpoint),
        ("10.0.0.0/16", Route::Unreachable),
        ("fd00::/64", Route::Unreachable),
    ];
    for (net, route) in routes {
        let (key, path) = resolved(net, &route).unwrap();
        let message = encode(&key, &path);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let read = RouteMessage::parse(bytes.as_slice()).unwrap();
        assert_eq!(decode(&read), Some((key, path)), "{net} {route:?}");
        assert_eq!(read.header.protocol, PROTOCOL);
    }
}

#[test]
fn the_next_hop_is_of_a_family_that_the_kernel_takes() {
    let hop = |net: &str, route: &Route| resolved(net, route).unwrap().1.gateway.unwrap().to_string();
    assert_eq!(hop("10.0.17.0/24", &tunnel_to("192.168.9.1", PEER_V4, None)), PEER_V4);
    assert_eq!(hop("fd00::/88", &tunnel_to("192.168.9.1", PEER_V4, None)), "fe80::4d:c0ff:fea8:902");
    assert!(hop("10.0.17.0/24", &tunnel_to("fd99::1", PEER_V6, None)).starts_with("fe80::"));
}

#[test]
fn a_route_without_its_device_or_peer_says_so() {
    let endpoint = Route::Endpoint { device: "mesh02".to_owned(), source: None };
    assert_eq!(resolved("10.0.16.2/32", &endpoint).unwrap_err(), "its device mesh02 is not there");
    let tunnel = tunnel_to("192.168.9.1", "192.168.9.3", None);
    assert_eq!(resolved("10.0.17.0/24", &tunnel).unwrap_err(), "192.168.9.3 is not a known peer");
}

#[test]
fn a_changed_route_is_seen_as_changed() {
    let (key, path) = resolved("10.0.17.0/24", &tunnel_to("192.168.9.1", PEER_V4, None)).unwrap();
    let mut message = encode(&key, &path);
    message.header.flags = RouteFlags::empty();
    assert_ne!(decode(&message).unwrap().1, path);
}
