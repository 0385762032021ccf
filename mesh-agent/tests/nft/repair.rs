//! What is there is changed as little as possible, and whatever drifts is repaired.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mesh_agent::dataplane::nft::NftPlane;
use mesh_agent::plane::{Applied, Depth, Plane};
use mesh_core::model::{Affinity, Balancing, Protocol};
use mesh_core::plan::{Family, Frontend};

use crate::lab::{CLIENT, Lab, NODE, VIP, VIP6};
use crate::plan::*;

#[test]
fn a_change_touches_nothing_else_and_an_unchanged_plan_not_even_nft() {
    let lab = Lab::new();
    let mut plan = plan();
    publish(&mut plan, Protocol::Tcp, 8080, &["10.10.1.2"]);
    let mut plane = apply(&lab.node, &plan);
    let mut talk = lab.client.connect("203.0.113.1:8080").unwrap();
    let mut through_tunnel = lab.a.connect("10.10.2.2:80").unwrap();
    publish(&mut plan, Protocol::Tcp, 8081, &["10.10.1.3"]);
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 2, "a chain and an element");
    assert!(talk.alive());
    assert!(lab.client.tcp("203.0.113.1:8081").unwrap().starts_with("b "));
    plan.frontends.remove(&published(Protocol::Tcp, 8080, None, Family::V4));
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 2);
    assert!(talk.alive(), "what runs ends by itself");
    refused(|| lab.client.tcp("203.0.113.1:8080"));
    // The replacement of the whole table by a new agent.
    let mut plane = apply(&lab.node, &plan);
    assert!(talk.alive() && through_tunnel.alive());
    // Nobody looks: had nft been asked, the table would be back.
    lab.node.sh("nft delete table inet mesh");
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 0);
    lab.node.sh("! nft list table inet mesh 2>/dev/null");
    // A change that fails because of that replaces the table.
    publish(&mut plan, Protocol::Tcp, 8082, &["10.10.1.3"]);
    step(&lab.node, &mut plane, &plan, Depth::Delta);
    assert!(lab.client.tcp("203.0.113.1:8081").unwrap().starts_with("b "));
}

#[test]
fn whatever_is_tampered_with_is_repaired() {
    let lab = Lab::new();
    let mut plan = plan();
    let both = ["10.10.1.2", "10.10.1.3"];
    vip(&mut plan, VIP, &both);
    vip(&mut plan, VIP6, &["fd10::1:2", "fd10::1:3"]);
    vip(&mut plan, "10.10.0.6", &[]);
    vip(&mut plan, "fd10::6", &[]);
    publish(&mut plan, Protocol::Tcp, 8080, &["10.10.1.2"]);
    publish(&mut plan, Protocol::Tcp, 8080, &["fd10::1:2", "fd10::1:3"]);
    for (at, family, to) in
        [(NODE, Family::V4, &both[..]), ("fd99::1", Family::V6, &["fd10::1:2", "fd10::1:3"])]
    {
        let mut sticky = pool(Some(80), to);
        sticky.affinity = Affinity::ClientIp { timeout: Duration::from_secs(60) };
        sticky.allow = vec!["0.0.0.0/1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        if family == Family::V6 {
            sticky.allow = vec!["fd99::/64".parse().unwrap(), "fd99::1:0:0:0:1/128".parse().unwrap()];
        }
        plan.frontends.insert(published(Protocol::Tcp, 9090, Some(at), family), sticky.clone().into());
        sticky.affinity = Affinity::None;
        sticky.balancing = Balancing::Maglev;
        plan.frontends.insert(published(Protocol::Udp, 9090, Some(at), family), sticky.into());
    }
    vip(&mut plan, "10.10.0.7", &both);
    let at = Frontend::Vip { vni: APP, address: "10.10.0.7".parse().unwrap() };
    behind(&mut plan, &at).balancing = Balancing::Maglev;
    let many: Vec<String> = (2..40).map(|n| format!("10.10.1.{n}")).collect();
    vip(&mut plan, "10.10.0.8", &many.iter().map(String::as_str).collect::<Vec<_>>());
    let mut plane = apply(&lab.node, &plan);
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Sweep), 0, "a second round changes nothing");
    // New chains come last; their order means nothing.
    let table = || {
        let listing = lab.node.sh("nft -s list table inet mesh");
        listing
            .split("\n\n")
            .map(|object| object.trim_end_matches("\n}\n").to_owned())
            .collect::<BTreeSet<_>>()
    };
    let good = table();
    let chain = "inet mesh published4_tcp_8080";
    let tampering = [
        "nft delete element inet mesh vips4 '{ 10.10.0.5 }'",
        "nft add element inet mesh subnets4 '{ 172.16.0.0/12 }'",
        "nft 'delete element inet mesh gateways4 { 10.10.0.0/16 }; \
              add element inet mesh gateways4 { 10.10.0.0/16 : 10.10.1.9 }'",
        &format!("nft flush chain {chain}"),
        &format!("nft insert rule {chain} accept"),
        &format!("nft 'flush chain {chain}; add rule {chain} meta l4proto tcp dnat ip to 10.10.1.3:80'"),
        "nft delete rule inet mesh from_task handle \
            $(nft -a list chain inet mesh from_task | sed -n 's/.*saddr.*handle //p' | head -1)",
        "nft 'add chain inet mesh spy { type filter hook prerouting priority 0; }; add rule inet mesh spy drop'",
        "nft 'add set inet mesh mine { type ipv4_addr; }'",
        "nft 'delete element inet mesh published4 { tcp . 8080 }; delete chain inet mesh published4_tcp_8080'",
        "nft 'chain inet mesh guard { policy drop; }'",
        "nft 'add table inet mesh { flags dormant; }'",
        "nft flush table inet mesh",
        "nft delete table inet mesh",
    ];
    for what in tampering {
        assert!(!differs(&lab.node, &mut plane, &plan), "before: {what}");
        lab.node.sh(what);
        assert!(differs(&lab.node, &mut plane, &plan), "not told: {what}");
        assert!(step(&lab.node, &mut plane, &plan, Depth::Sweep) > 0, "unseen: {what}");
        assert!(table() == good, "not as it was after: {what}");
        assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Sweep), 0, "not at rest after: {what}");
        assert_eq!(lab.client.tcp("203.0.113.1:8080").unwrap(), format!("a {CLIENT}"));
    }
    // Deltas learn what they wrote.
    publish(&mut plan, Protocol::Tcp, 8080, &both);
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 1);
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Sweep), 0);
}

#[test]
fn removal_leaves_other_tables_alone() {
    let lab = Lab::new();
    let foreign = "nft 'add table inet theirs; add chain inet theirs c; add rule inet theirs c accept; \
                   add table ip mesh; add chain ip mesh c'";
    lab.node.sh(foreign);
    let before = lab.node.sh("nft list ruleset");
    let mut plane = apply(&lab.node, &plan());
    let remove = |plane: &mut NftPlane| lab.node.inside(|| runtime().block_on(plane.remove_all()));
    assert_eq!(remove(&mut plane), Applied { changed: 1, ..Applied::default() });
    assert_eq!(lab.node.sh("nft list ruleset"), before);
    assert_eq!(remove(&mut NftPlane::new()), Applied::default(), "there is nothing any more");
}

#[test]
fn a_change_among_thousands_of_services_is_quick() {
    let lab = Lab::new();
    let mut plan = plan();
    let all = ["10.10.1.2", "10.10.1.3", "10.10.2.2"];
    for n in 0..2500u16 {
        publish(&mut plan, Protocol::Tcp, 10_000 + n, &all);
        vip(&mut plan, &format!("10.10.{}.{}", 3 + n / 250, 1 + n % 250), &all);
    }
    let mut plane = apply(&lab.node, &plan);
    let began = Instant::now();
    publish(&mut plan, Protocol::Tcp, 10_000, &all[..1]);
    publish(&mut plan, Protocol::Tcp, 9000, &all);
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Delta), 3);
    let took = began.elapsed();
    println!("two of 5,000 frontends changed in {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    let began = Instant::now();
    assert_eq!(step(&lab.node, &mut plane, &plan, Depth::Sweep), 0);
    println!("a sweep took {:?}", began.elapsed());
}
