//! Plans for the lab, rounds of a plane in it, and what counts as refused or dropped.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_agent::dataplane::nft::NftPlane;
use mesh_agent::plane::{Applied, Depth, Plane};
use mesh_core::model::{Affinity, Balancing, NodeId, Protocol, TaskAddress, TaskId, Vni};
use mesh_core::plan::{Backend, Balance, Family, Frontend, Mac, NetworkGate, Pool, PortGate, Site};

use crate::lab::Ns;

pub(crate) const APP: Vni = Vni(4096);

/// Networks, ports and tasks of the lab, without any frontend.
pub(crate) fn plan() -> Balance {
    let gate = |subnets: &[&str], egress, v4: &str, v6: Option<&str>| NetworkGate {
        subnets: subnets.iter().map(|net| net.parse().unwrap()).collect(),
        egress,
        gateway: Some(address(v4, v6)),
    };
    let port = |vni, v4: &str, v6| PortGate { vni, addresses: address(v4, v6) };
    let site = Arc::new(Site {
        mac: Mac::of_task("x"),
        device: Box::default(),
        peer: None,
        weight: 1,
        silent: false,
    });
    let run = ["10.10.1.2", "10.10.1.3", "10.10.2.2", "fd10::1:2", "fd10::1:3", "fd10::2:2"];
    Balance {
        frontends: Default::default(),
        sites: run.map(|task| ((APP, task.parse().unwrap()), Arc::clone(&site))).into_iter().collect(),
        networks: BTreeMap::from([
            (APP, gate(&["10.10.0.0/16", "fd10::/64"], true, "10.10.1.1", Some("fd10::1:1"))),
            (Vni(4097), gate(&["10.20.0.0/16"], true, "10.20.1.1", None)),
            (Vni(4098), gate(&["10.30.0.0/16"], false, "10.30.1.1", None)),
        ]),
        ports: BTreeMap::from([
            ("mesh00000000001".to_owned(), port(APP, "10.10.1.2", Some("fd10::1:2"))),
            ("mesh00000000002".to_owned(), port(APP, "10.10.1.3", Some("fd10::1:3"))),
            ("mesh00000000003".to_owned(), port(Vni(4097), "10.20.1.2", None)),
            ("mesh00000000004".to_owned(), port(Vni(4098), "10.30.1.2", None)),
        ]),
        ..Balance::default()
    }
}

pub(crate) fn address(v4: &str, v6: Option<&str>) -> TaskAddress {
    TaskAddress { v4: v4.parse().unwrap(), v6: v6.map(|v6| v6.parse().unwrap()) }
}

pub(crate) fn pool(target: Option<u16>, backends: &[&str]) -> Pool {
    let backend = |text: &&str| {
        let address: IpAddr = text.parse().unwrap();
        Backend {
            id: TaskId::new(text.replace(['.', ':'], "x")),
            slot: 1,
            address,
            node: NodeId::new("n1"),
            local: !text.contains(".2.2") && !text.contains("2:2"),
            weight: 1,
        }
    };
    Pool {
        service: "web".parse().unwrap(),
        vni: APP,
        target,
        balancing: Balancing::Random,
        affinity: Affinity::None,
        return_path: Default::default(),
        idle: None,
        allow: Vec::new(),
        backends: backends.iter().map(backend).collect(),
    }
}

pub(crate) fn vip(plan: &mut Balance, address: &str, backends: &[&str]) {
    let at = Frontend::Vip { vni: APP, address: address.parse().unwrap() };
    plan.frontends.insert(at, pool(None, backends).into());
}

pub(crate) fn published(protocol: Protocol, port: u16, at: Option<&str>, family: Family) -> Frontend {
    Frontend::Published { protocol, port, address: at.map(|at| at.parse().unwrap()), family }
}

/// Publishes 8080 and up to port 80 of the tasks over TCP, or 53 over UDP.
pub(crate) fn publish(plan: &mut Balance, protocol: Protocol, port: u16, backends: &[&str]) {
    let family = if backends.iter().any(|b| b.contains(':')) { Family::V6 } else { Family::V4 };
    let target = if protocol == Protocol::Tcp { 80 } else { 53 };
    plan.frontends.insert(published(protocol, port, None, family), pool(Some(target), backends).into());
}

/// What is behind a frontend, to be changed.
pub(crate) fn behind<'a>(plan: &'a mut Balance, at: &Frontend) -> &'a mut Pool {
    Arc::make_mut(plan.frontends.get_mut(at).unwrap())
}

/// One round inside a namespace.
pub(crate) fn round(node: &Ns, plane: &mut NftPlane, plan: &Balance, depth: Depth) -> Applied {
    node.inside(|| runtime().block_on(plane.reconcile(plan, depth)))
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A first round, which must succeed.
pub(crate) fn apply(node: &Ns, plan: &Balance) -> NftPlane {
    let mut plane = NftPlane::new();
    let applied = round(node, &mut plane, plan, Depth::Sweep);
    assert_eq!(applied.errors, BTreeMap::new());
    assert!(applied.changed > 0);
    plane
}

/// A further round, which must succeed; how much it changed.
pub(crate) fn step(node: &Ns, plane: &mut NftPlane, plan: &Balance, depth: Depth) -> usize {
    let applied = round(node, plane, plan, depth);
    assert_eq!(applied.errors, BTreeMap::new());
    applied.changed
}

/// Whether a look finds that the table is not as planned.
pub(crate) fn differs(node: &Ns, plane: &mut NftPlane, plan: &Balance) -> bool {
    let Applied { changed, errors, drift } = round(node, plane, plan, Depth::Look);
    assert_eq!((changed, errors), (0, BTreeMap::new()));
    !drift.is_empty()
}

/// Refused, and not by silence.
pub(crate) fn refused<T>(question: impl FnOnce() -> std::io::Result<T>) {
    let began = Instant::now();
    let Err(error) = question() else { panic!("somebody answered") };
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?} until {error}");
    let kinds = [ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
    assert!(kinds.contains(&error.kind()), "{error:?}");
}

/// Nobody answers.
pub(crate) fn dropped<T>(question: impl FnOnce() -> std::io::Result<T>) {
    let Err(error) = question() else { panic!("somebody answered") };
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{error:?}");
}

pub(crate) fn names(answers: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for answer in answers {
        let name = answer.split(' ').next().unwrap().to_owned();
        *names.entry(name).or_default() += 1;
    }
    names
}
