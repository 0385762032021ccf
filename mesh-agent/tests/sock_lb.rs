//! Balancing at sockets in the real kernel: real processes in real control groups and network namespaces. Needs root,
//! cgroup v2, `nft`, `nsenter`, python3 and a build with eBPF; without them it fails.

#![expect(clippy::unwrap_used, reason = "a test that panics fails, which is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use mesh_agent::config::KernelFeature;
use mesh_agent::dataplane::ebpf::{self, EbpfPlane, FLOWS};
use mesh_agent::plane::{Applied, Depth, Plane};
use mesh_core::model::{Affinity, Balancing, Origin, Protocol};
use mesh_core::plan::{Balance, Family, Frontend, Mac, Pool, Site};
use mesh_ebpf::abi::{self, Backend, FrontendKey, NetnsKey, map};
use tempfile::TempDir;

#[path = "nft/lab.rs"]
#[expect(dead_code, reason = "made for the tests of the other plane")]
mod lab;
#[path = "sock_lb/people.rs"]
mod people;
#[path = "nft/plan.rs"]
#[expect(dead_code, reason = "made for the tests of the other plane")]
mod plan;

use lab::{Lab, NODE, Ns, VIP, VIP6};
use people::{Group, Process};
use plan::*;

const A: &str = "10.10.1.2";
const B: &str = "10.10.1.3";
const A6: &str = "fd10::1:2";
const B6: &str = "fd10::1:3";

/// A node with a control group, and its plane.
struct Node {
    lab: Lab,
    group: Group,
    pins: TempDir,
    plan: Balance,
    plane: Option<EbpfPlane>,
}

/// Takes backends out of a pool.
fn keep(pool: &mut Pool, stays: impl Fn(&mesh_core::plan::Backend) -> bool) {
    pool.backends = pool.backends.iter().filter(|backend| stays(backend)).cloned().collect();
}

impl Node {
    fn new() -> Self {
        let lab = Lab::new();
        // As the overlay has it: what the node's own packets to tasks come from.
        lab.node.sh("ip addr add fd10::1:1/128 dev lo nodad");
        for (device, v4, v6) in [("mesh00000000001", A, A6), ("mesh00000000002", B, B6)] {
            lab.node.sh(&format!(
                "ip route replace {v4}/32 dev {device} src 10.10.1.1; \
                 ip -6 route replace {v6}/128 dev {device} src fd10::1:1"
            ));
        }
        let mut plan = plan();
        let tasks = [(&lab.a, "1", [A, A6]), (&lab.b, "2", [B, B6])];
        for (netns, number, addresses) in tasks {
            let device = format!("mesh0000000000{number}");
            plan.origins.insert(device.clone(), Origin::Netns { path: netns.path().into() });
            for address in addresses {
                let mac = Mac([2, 0x54, 0, 0, 0, 1]);
                let site = Site { mac, device: device.as_str().into(), peer: None, weight: 1, silent: false };
                plan.sites.insert((APP, address.parse().unwrap()), site.into());
            }
        }
        let origin = Origin::Netns { path: lab.other.path().into() };
        plan.origins.insert("mesh00000000003".to_owned(), origin);
        vip(&mut plan, VIP, &[A, B]);
        vip(&mut plan, VIP6, &[A6, B6]);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let target = if protocol == Protocol::Tcp { 80 } else { 53 };
            for (family, backends) in [(Family::V4, [A, B]), (Family::V6, [A6, B6])] {
                let mut pool = pool(Some(target), &backends);
                pool.backends = pool.backends[..1].into();
                plan.frontends.insert(published(protocol, 8080, None, family), pool.into());
            }
        }
        let mut node =
            Self { lab, group: Group::new(), pins: tempfile::tempdir().unwrap(), plan, plane: None };
        node.start();
        node
    }

    /// Starts the plane over what the former one left.
    fn start(&mut self) {
        assert!(ebpf::built_in(), "built without eBPF: run `cargo xtask setup`");
        let pins = self.pins();
        let cgroup = self.group.0.clone();
        self.plane = None;
        self.plane = Some(self.lab.node.inside(|| EbpfPlane::open(&pins, &cgroup, &[], FLOWS).unwrap()));
        assert!(self.apply(Depth::Sweep).changed > 0);
        assert_eq!(self.apply(Depth::Sweep).changed, 0, "a second round changes nothing");
        assert_eq!(self.apply(Depth::Look), Applied::default(), "a look finds nothing");
    }

    fn pins(&self) -> std::path::PathBuf {
        self.pins.path().join("bpf")
    }

    fn apply(&mut self, depth: Depth) -> Applied {
        let (plane, plan) = (self.plane.as_mut().unwrap(), &self.plan);
        let applied = self.lab.node.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(plane.reconcile(plan, depth))
        });
        assert_eq!(applied.errors, BTreeMap::new());
        applied
    }

    fn process(&self, netns: &Ns) -> Process {
        self.group.process(netns)
    }

    fn change(&mut self, address: &str, change: impl Fn(&mut Pool)) {
        let at = Frontend::Vip { vni: APP, address: address.parse().unwrap() };
        change(behind(&mut self.plan, &at));
        self.apply(Depth::Delta);
    }

    /// A task is no more.
    fn remove(&mut self, addresses: &[&str]) {
        for address in addresses {
            let address: IpAddr = address.parse().unwrap();
            self.plan.sites.remove(&(APP, address));
            for pool in self.plan.frontends.values_mut() {
                keep(Arc::make_mut(pool), |backend| backend.address != address);
            }
        }
        self.apply(Depth::Delta);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.plane = None;
        let left = self.lab.node.inside(|| ebpf::remove_all(&self.pins()));
        assert!(left.errors.is_empty() || std::thread::panicking(), "{left:?}");
    }
}

/// All answers to many new sockets.
fn answers(process: &mut Process, what: &str) -> BTreeSet<String> {
    (0..24).map(|_| process.does(what)).collect()
}

fn set<const N: usize>(lines: [String; N]) -> BTreeSet<String> {
    lines.into()
}

#[test]
fn tasks_and_the_node_are_led_to_backends_and_told_the_vip() {
    let node = Node::new();
    // Who asks as whom: a task that is a backend leads itself by its packets only.
    let cases = [(&node.lab.node, "10.10.1.1", "fd10::1:1"), (&node.lab.b, B, B6)];
    for (netns, own, own6) in cases {
        let mut process = node.process(netns);
        for (kind, port) in [("tcp", 80), ("tcp6", 80), ("udp", 53), ("udp6", 53)] {
            let seen = answers(&mut process, &format!("{kind} {VIP} {port}"));
            let at_a = format!("a is {own}, told {VIP}:{port}, really {A}:{port}");
            assert!(seen.contains(&at_a), "{at_a}: {seen:?}");
            if own != B {
                let at_b = format!("b is {own}, told {VIP}:{port}, really {B}:{port}");
                assert_eq!(seen, set([at_a, at_b]));
            }
        }
        for (kind, port) in [("tcp", 80), ("udp", 53)] {
            let seen = answers(&mut process, &format!("{kind} {VIP6} {port}"));
            let at_a = format!("a is {own6}, told [{VIP6}]:{port}, really [{A6}]:{port}");
            assert!(seen.contains(&at_a), "{at_a}: {seen:?}");
        }
        // Unconnected sockets are told where their answers come from, and stay with who answered.
        for (kind, to, told, own) in [
            ("sendto", VIP, VIP.to_owned(), own),
            ("sendto6", VIP, VIP.to_owned(), own),
            ("sendto", VIP6, format!("[{VIP6}]"), own6),
        ] {
            let mut who = BTreeSet::new();
            for _ in 0..24 {
                let answer = process.does(&format!("{kind} {to} 53"));
                assert!(answer.contains(&format!(", told {told}:53, ")), "{answer}");
                assert_eq!(process.does("again"), answer);
                if answer.starts_with("a ") {
                    assert!(answer.starts_with(&format!("a is {own},")), "{answer}");
                }
                who.insert(answer[..1].to_owned());
            }
            assert_eq!(who, set(["a".to_owned(), "b".to_owned()]));
        }
    }
}

#[test]
fn the_node_is_led_from_its_own_ports() {
    let node = Node::new();
    let mut process = node.process(&node.lab.node);
    for (kind, port) in [("tcp", 80), ("udp", 53), ("tcp6", 80)] {
        for address in [NODE, "127.0.0.1"] {
            let answer = process.does(&format!("{kind} {address} 8080"));
            assert_eq!(answer, format!("a is 10.10.1.1, told {address}:8080, really {A}:{port}"));
        }
    }
    for address in ["fd99::1", "::1"] {
        let answer = process.does(&format!("tcp {address} 8080"));
        assert_eq!(answer, format!("a is fd10::1:1, told [{address}]:8080, really [{A6}]:80"));
        let answer = process.does(&format!("sendto {address} 8080"));
        assert!(answer.starts_with(&format!("a is fd10::1:1, told [{address}]:8080, ")), "{answer}");
    }
    // Whose sockets are tied goes by packets.
    let answer = process.does("tcp 127.0.0.1 8080 127.0.0.1");
    assert_eq!(answer, "a is 10.10.1.1, told 127.0.0.1:8080, really 127.0.0.1:8080");
    assert_eq!(process.does("tcp 127.0.0.1 8081"), "ECONNREFUSED");
}

#[test]
fn others_are_not_touched_and_are_served_by_packets() {
    let mut node = Node::new();
    let elsewhere = Group::new();
    let by_packets = |process: &mut Process| {
        let seen = answers(process, &format!("tcp {VIP} 80"));
        assert!(
            seen.iter().all(|line| line.ends_with(&format!("told {VIP}:80, really {VIP}:80"))),
            "{seen:?}"
        );
    };
    by_packets(&mut elsewhere.process(&node.lab.node));
    by_packets(&mut elsewhere.process(&node.lab.b));
    // A task that only reaches itself, by its packets.
    node.change(VIP, |pool| pool.backends = pool.backends[..1].into());
    let mut a = node.process(&node.lab.a);
    assert_eq!(a.does(&format!("tcp {VIP} 80")), format!("a is 10.10.1.1, told {VIP}:80, really {VIP}:80"));
    // Somebody of another network, and somebody of none.
    let mut other = node.process(&node.lab.other);
    assert_eq!(other.does_at_once(&format!("tcp {VIP} 80")), "ECONNREFUSED");
    let mut client = node.process(&node.lab.client);
    assert_ne!(client.does(&format!("tcp {VIP} 80")).get(..1), Some("a"));
    // Choices that need the client's address or port.
    let mut b = node.process(&node.lab.b);
    let led = format!("a is {B}, told {VIP}:80, really {A}:80");
    assert_eq!(b.does(&format!("tcp {VIP} 80")), led);
    node.change(VIP, |pool| pool.balancing = Balancing::Maglev);
    by_packets(&mut b);
    node.change(VIP, |pool| {
        pool.balancing = Balancing::Random;
        pool.affinity = Affinity::ClientIp { timeout: Duration::from_secs(60) };
    });
    by_packets(&mut b);
    node.change(VIP, |pool| pool.affinity = Affinity::None);
    assert_eq!(b.does(&format!("tcp {VIP} 80")), led);
}

#[test]
fn a_vip_without_backends_refuses_at_once() {
    let mut node = Node::new();
    for vip in [VIP, VIP6] {
        node.change(vip, |pool| keep(pool, |_| false));
        for netns in [&node.lab.node, &node.lab.b] {
            let mut process = node.process(netns);
            for kind in ["tcp", "udp", "sendto"] {
                assert_eq!(process.does_at_once(&format!("{kind} {vip} 53")), "ECONNREFUSED", "{kind}");
            }
        }
    }
}

#[test]
fn sockets_of_a_backend_that_has_gone_end_and_others_do_not() {
    let mut node = Node::new();
    // Until each kind of socket has been led to each backend.
    let mut open = Vec::new();
    for netns in ["node", "other than b"] {
        for what in [format!("tcp {VIP} 80"), format!("udp {VIP} 53"), format!("sendto {VIP6} 53")] {
            for who in ["a", "b"] {
                let ns = if netns == "node" { &node.lab.node } else { &node.lab.b };
                if who == "b" && netns != "node" {
                    continue;
                }
                let mut process = node.process(ns);
                let led = (0..50).any(|_| {
                    let answer = process.does(&what);
                    // A task that falls on itself goes by packets, which choose again.
                    answer.starts_with(&format!("{who} ")) && !answer.contains(&format!("really {VIP}"))
                });
                assert!(led, "{what}: never {who}");
                open.push((netns, what.clone(), who, process));
            }
        }
    }
    // Draining changes nothing.
    for vip in [VIP, VIP6] {
        node.change(vip, |pool| keep(pool, |backend| ![A, A6].contains(&&*backend.address.to_string())));
    }
    for (netns, what, who, process) in &mut open {
        let answer = process.does("again");
        let stays = answer.starts_with(if what.starts_with("tcp") { "still " } else { *who });
        assert!(stays, "{netns} {what} {who}: {answer}");
    }
    node.remove(&[A, A6]);
    for (netns, what, who, process) in &mut open {
        let case = format!("{netns} {what} {who}");
        match (*who, what.split(' ').next().unwrap()) {
            ("a", "sendto") => assert!(process.does("again").starts_with("b "), "{case}"),
            ("a", _) => assert_eq!(process.does_at_once("hear"), "ECONNABORTED", "{case}"),
            _ => assert_eq!(process.does("hear"), "nothing", "{case}"),
        }
    }
}

/// A connection may go on when the node is back; a datagram that is not answered is lost now.
#[test]
fn datagrams_leave_a_backend_whose_node_is_silent_and_connections_stay() {
    let mut node = Node::new();
    let mut open = Vec::new();
    for what in [format!("tcp {VIP} 80"), format!("udp {VIP} 53"), format!("udp {VIP} 53")] {
        let who = if open.len() == 2 { "b " } else { "a " };
        let mut process = node.process(&node.lab.node);
        assert!((0..50).any(|_| process.does(&what).starts_with(who)), "{what}: never {who}");
        open.push(process);
    }
    let [connection, datagrams, others] = open.as_mut_slice() else { unreachable!() };
    let site = Arc::make_mut(node.plan.sites.get_mut(&(APP, A.parse().unwrap())).unwrap());
    site.silent = true;
    for pool in node.plan.frontends.values_mut() {
        keep(Arc::make_mut(pool), |backend| backend.address.to_string() != A);
    }
    node.apply(Depth::Delta);
    assert!(connection.does("again").starts_with("still "));
    assert_eq!(datagrams.does_at_once("hear"), "ECONNABORTED");
    assert_eq!(others.does("hear"), "nothing");
    for _ in 0..20 {
        assert!(datagrams.does(&format!("udp {VIP} 53")).starts_with("b "));
    }
    assert_eq!(node.apply(Depth::Delta).changed, 0, "they are ended once");
}

#[test]
fn programs_stay_while_no_agent_runs_and_are_replaced_in_place() {
    let mut node = Node::new();
    let mut process = node.process(&node.lab.b);
    let led = |process: &mut Process| {
        let seen = answers(process, &format!("tcp {VIP} 80"));
        assert!(seen.contains(&format!("a is {B}, told {VIP}:80, really {A}:80")), "{seen:?}");
    };
    led(&mut process);
    let links = || -> Vec<_> {
        let dir = std::fs::read_dir(node.pins().join("sockets")).unwrap();
        let mut names: Vec<_> = dir.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = links();
    assert_eq!(before.len(), 9, "{before:?}");
    node.plane = None;
    led(&mut process);
    node.start();
    led(&mut process);
    let after: Vec<_> = std::fs::read_dir(node.pins().join("sockets")).unwrap().collect();
    assert_eq!(after.len(), before.len());

    // Without, nothing is left of it, and packets are balanced.
    node.plane = None;
    let pins = node.pins();
    node.plane = Some(
        node.lab
            .node
            .inside(|| EbpfPlane::open(&pins, Path::new(""), &[KernelFeature::SockLb], FLOWS).unwrap()),
    );
    node.apply(Depth::Sweep);
    assert_eq!(std::fs::read_dir(pins.join("sockets")).unwrap().count(), 0);
    let seen = answers(&mut process, &format!("tcp {VIP} 80"));
    assert!(seen.contains(&format!("a is {B}, told {VIP}:80, really {VIP}:80")), "{seen:?}");

    // A group that is not there is no reason not to balance.
    node.plane = None;
    let none = Path::new("/sys/fs/cgroup/none");
    node.plane = Some(node.lab.node.inside(|| EbpfPlane::open(&pins, none, &[], FLOWS).unwrap()));
    node.apply(Depth::Sweep);
    let seen = answers(&mut process, &format!("tcp {VIP} 80"));
    assert!(seen.iter().all(|line| line.ends_with(&format!("really {VIP}:80"))), "{seen:?}");
}

/// Whatever somebody changes in maps is told by a look, which changes nothing, and mended by a sweep.
#[test]
fn what_somebody_changed_in_maps_is_told() {
    let mut node = Node::new();
    let pinned = |name: &str| {
        let maps = std::fs::read_dir(node.pins().join("maps")).unwrap();
        let path = maps.map(|entry| entry.unwrap().path().join(name)).find(|path| path.exists());
        MapData::from_pin(path.unwrap_or_else(|| panic!("no {name}"))).unwrap()
    };
    let mut frontends: HashMap<_, FrontendKey, abi::Frontend> =
        Map::from_map_data(pinned(map::FRONTENDS)).unwrap().try_into().unwrap();
    let mut backends: Array<_, Backend> =
        Map::from_map_data(pinned(map::BACKENDS)).unwrap().try_into().unwrap();
    let mut netns: HashMap<_, NetnsKey, u32> =
        Map::from_map_data(pinned(map::NETNS)).unwrap().try_into().unwrap();
    let key = FrontendKey::vip(VIP.parse::<IpAddr>().unwrap().into());
    let one = frontends.get(&key, 0).unwrap();
    let other = FrontendKey::vip(A.parse::<IpAddr>().unwrap().into());
    let id = (1..64).find(|id| backends.get(id, 0).unwrap().generation != 0).unwrap();
    let backend = backends.get(&id, 0).unwrap();
    let member = netns.keys().next().unwrap().unwrap();

    let mut told = |what: &str, object: &str, why: &str| {
        for _ in 0..2 {
            let drift = node.apply(Depth::Look).drift;
            let found = drift.iter().any(|(at, is)| at.contains(object) && is == why);
            assert!(found, "{what}: {drift:?}");
        }
        node.apply(Depth::Sweep);
        assert_eq!(node.apply(Depth::Look), Applied::default(), "{what} is mended");
    };
    frontends.remove(&key).unwrap();
    told("a frontend is removed", VIP, "missing");
    frontends.insert(other, one, 0).unwrap();
    told("a frontend is added", A, "not planned");
    frontends.insert(key, abi::Frontend { flags: one.flags ^ abi::Frontend::LEAST, ..one }, 0).unwrap();
    told("a frontend is changed", VIP, "not as planned");
    backends.set(id, Backend { weight: 9, ..backend }, 0).unwrap();
    told("a backend is changed", "backend ", "not as planned");
    netns.remove(&member).unwrap();
    told("a task's sockets are forgotten", "sockets of", "not as planned");
}
