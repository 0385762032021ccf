//! Golden tables: what the kernel gets for a plan, in short. The fixed part has a golden of its own, and a
//! change has one in full.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::dataplane::nft::ruleset::Change;
use mesh_core::model::{NodeId, Protocol, TaskAddress, TaskId};
use mesh_core::plan::Backend;

mod short;

/// Part of a plan: a frontend and its pool.
pub(in crate::dataplane::nft) type Front = (Frontend, Pool);

pub(in crate::dataplane::nft) const NET: Vni = Vni(4096);

pub(in crate::dataplane::nft) fn task(address: &str) -> Backend {
    let address: IpAddr = address.parse().unwrap();
    let number = address.to_string().rsplit(['.', ':']).next().unwrap().to_owned();
    Backend {
        id: TaskId::new(format!("task{number}")),
        slot: number.parse().unwrap(),
        address,
        node: NodeId::new("n1"),
        local: true,
        weight: 1,
    }
}

fn pool(target: Option<u16>, backends: &[Backend]) -> Pool {
    Pool {
        service: "web".parse().unwrap(),
        vni: NET,
        target,
        balancing: Balancing::Random,
        affinity: Affinity::None,
        return_path: Default::default(),
        idle: None,
        allow: Vec::new(),
        backends: backends.into(),
    }
}

pub(in crate::dataplane::nft) fn vip(address: &str, backends: &[Backend]) -> Front {
    (Frontend::Vip { vni: NET, address: address.parse().unwrap() }, pool(None, backends))
}

fn published(protocol: Protocol, port: u16, at: Option<&str>, family: Family) -> Frontend {
    Frontend::Published { protocol, port, address: at.map(|at| at.parse().unwrap()), family }
}

pub(in crate::dataplane::nft) fn port(
    protocol: Protocol,
    port: u16,
    target: u16,
    backends: &[Backend],
) -> Front {
    (published(protocol, port, None, Family::V4), pool(Some(target), backends))
}

/// A plan with one dual-stack network, one local task and these frontends.
pub(in crate::dataplane::nft) fn balance(frontends: Vec<Front>) -> Balance {
    let gateway = TaskAddress { v4: [10, 10, 1, 1].into(), v6: Some("fd00::1:1".parse().unwrap()) };
    let address = TaskAddress { v4: [10, 10, 1, 2].into(), v6: Some("fd00::1:2".parse().unwrap()) };
    let subnets = vec!["10.10.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
    Balance {
        frontends: frontends.into_iter().map(|(at, pool)| (at, pool.into())).collect(),
        networks: BTreeMap::from([(NET, NetworkGate { subnets, egress: true, gateway: Some(gateway) })]),
        ports: BTreeMap::from([("mesh00000000001".to_owned(), PortGate { vni: NET, addresses: address })]),
        ..Balance::default()
    }
}

/// What these frontends add to the fixed part, the networks and the ports.
fn added(frontends: Vec<Front>) -> String {
    without(render(&balance(frontends)), &render(&balance(Vec::new())))
}

fn without(mut ruleset: Ruleset, common: &Ruleset) -> String {
    ruleset.chains.retain(|name, _| !common.chains.contains_key(name));
    for (name, set) in &mut ruleset.sets {
        set.elements.retain(|key, _| !common.sets[name].elements.contains_key(key));
    }
    ruleset.sets.retain(|_, set| !set.elements.is_empty());
    short::table(&ruleset)
}

#[test]
fn the_fixed_part() {
    insta::assert_snapshot!(short::table(&render(&Balance::default())));
}

#[test]
fn the_fixed_part_where_programs_balance() {
    insta::assert_snapshot!(short::table(&render_gates(&Balance::default())));
}

#[test]
fn networks_and_ports() {
    let mut plan = balance(Vec::new());
    let gate = NetworkGate { subnets: vec!["10.20.0.0/16".parse().unwrap()], egress: false, gateway: None };
    plan.networks.insert(Vni(4097), gate);
    insta::assert_snapshot!(without(render(&plan), &render(&Balance::default())));
}

#[test]
fn tunnels_are_known_by_whom_they_lead_to_whoever_balances() {
    let plan = Balance {
        peers: ["192.0.2.2", "2001:db8::2"].map(|peer| peer.parse().unwrap()).into(),
        tunnel_port: 4789,
        ..balance(Vec::new())
    };
    let tunnels = "set tunnels4: ipv4_addr . inet_service\n    192.0.2.2 . 4789\n\
                   set tunnels6: ipv6_addr . inet_service\n    2001:db8::2 . 4789\n\
                   set vtep: inet_service\n    4789\n";
    assert_eq!(without(render(&plan), &render(&balance(Vec::new()))), tunnels);
    assert_eq!(without(render_gates(&plan), &render_gates(&balance(Vec::new()))), tunnels);
}

#[test]
fn a_vip_of_both_families() {
    insta::assert_snapshot!(added(vec![
        vip("10.10.0.5", &[task("10.10.1.2"), task("10.10.1.3")]),
        vip("fd00::5", &[task("fd00::1:2"), task("fd00::1:3")]),
    ]));
}

#[test]
fn published_ports() {
    let v4 = [task("10.10.1.2"), task("10.10.1.3")];
    let v6 = [task("fd00::1:2")];
    insta::assert_snapshot!(added(vec![
        port(Protocol::Tcp, 8080, 80, &v4),
        port(Protocol::Udp, 53, 5353, &v4),
        (published(Protocol::Tcp, 8080, None, Family::V6), pool(Some(80), &v6)),
        (published(Protocol::Tcp, 9090, Some("127.0.0.1"), Family::V4), pool(Some(80), &v4[..1])),
        (published(Protocol::Tcp, 9090, Some("2001:db8::1"), Family::V6), pool(Some(80), &v6)),
    ]));
}

#[test]
fn an_allow_list() {
    let allow: Vec<IpNet> =
        ["192.0.2.0/24", "192.0.2.128/25", "198.51.100.7/32"].map(|n| n.parse().unwrap()).into();
    let mut web = port(Protocol::Tcp, 8080, 80, &[task("10.10.1.2")]);
    web.1.allow = allow.clone();
    let mut inside = vip("10.10.0.5", &[task("10.10.1.2")]);
    inside.1.allow = allow;
    insta::assert_snapshot!(added(vec![web, inside]));
}

#[test]
fn weights() {
    let mut tasks = [task("10.10.1.2"), task("10.10.1.3")];
    (tasks[0].weight, tasks[1].weight) = (300, 100);
    insta::assert_snapshot!(added(vec![port(Protocol::Tcp, 8080, 80, &tasks)]));
}

#[test]
fn many_backends_share_one_rule() {
    let tasks: Vec<Backend> = (2..20).map(|n| task(&format!("10.10.1.{n}"))).collect();
    insta::assert_snapshot!(added(vec![port(Protocol::Tcp, 8080, 80, &tasks)]));
}

#[test]
fn affinity_and_maglev_hash_with_a_fixed_seed() {
    let tasks = [task("10.10.1.2"), task("10.10.1.3")];
    let mut sticky = port(Protocol::Tcp, 8080, 80, &tasks);
    sticky.1.affinity = Affinity::ClientIp { timeout: Duration::from_secs(10_800) };
    let mut maglev = vip("10.10.0.5", &tasks);
    maglev.1.balancing = Balancing::Maglev;
    insta::assert_snapshot!(added(vec![sticky, maglev]));
}

#[test]
fn an_empty_pool_closes_its_vip_and_leaves_its_port_to_the_node() {
    insta::assert_snapshot!(added(vec![vip("10.10.0.5", &[]), port(Protocol::Tcp, 8080, 80, &[])]));
}

#[test]
fn a_change_touches_only_what_differs_and_in_an_order_without_dangling_references() {
    let tasks = [task("10.10.1.2"), task("10.10.1.3")];
    let before =
        render(&balance(vec![port(Protocol::Tcp, 80, 80, &tasks), port(Protocol::Tcp, 81, 80, &tasks)]));
    let after =
        render(&balance(vec![port(Protocol::Tcp, 80, 80, &tasks[..1]), port(Protocol::Tcp, 82, 80, &tasks)]));
    let change = before.change_to(&after).unwrap();
    // One chain changed; one chain and its element came; one chain and its element went.
    assert_eq!(change.objects, 5);
    let script = serde_json::to_value(&change.script).unwrap();
    let commands: Vec<String> = script["nftables"].as_array().unwrap().iter().map(Value::to_string).collect();
    insta::assert_snapshot!(commands.join("\n"));
    assert_eq!(after.change_to(&after).unwrap(), Change::default());
}
