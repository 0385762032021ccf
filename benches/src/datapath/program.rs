//! What the agent takes to turn a plan into maps: its own code, without the plan itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use mesh_agent::dataplane::ebpf::EbpfPlane;
use mesh_core::model::{Affinity, Balancing, Name, NodeId, Protocol, TaskId, Vni};
use mesh_core::plan::{Backend, Balance, Family, Frontend, Mac, Pool, Site};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

use super::report::ServiceChange;

const VNI: Vni = Vni(4096);
const CHANGES: u32 = 101;
const NODES: u32 = 10;

/// How many services, tasks of each, and whether they have a published port beside the VIP. The agent's maps have
/// four million slots, which two tables of 256 for each of 10,000 services would exceed.
const SIZES: [(u32, u32, bool); 4] = [(1, 10, true), (100, 10, true), (1000, 10, true), (10_000, 2, false)];

/// Measures all sizes.
pub(super) fn measure() -> Result<Vec<ServiceChange>> {
    // The agent keeps its maps in a file system that it mounts: in a namespace, that ends with this process.
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot keep its mounts to itself")?;
    SIZES.into_iter().map(|(services, tasks, published)| one(services, tasks, published)).collect()
}

fn one(services: u32, tasks: u32, published: bool) -> Result<ServiceChange> {
    let dir = tempfile::tempdir()?;
    let pins = dir.path().join("bpf");
    let measured = changes(&pins, services, tasks, published);
    mesh_agent::dataplane::ebpf::remove_all(&pins);
    let (all, change) = measured?;
    let (change_us, all_ms) = (change.as_micros() as u64, all.as_millis() as u64);
    eprintln!("{services} services: one change {change_us} us, all {all_ms} ms");
    Ok(ServiceChange { services, change_us, all_ms })
}

/// The time for all, and the median of those for one change.
fn changes(pins: &Path, services: u32, tasks: u32, published: bool) -> Result<(Duration, Duration)> {
    let mut plane = EbpfPlane::open(pins, None, true).map_err(|error| anyhow!(error.in_full()))?;
    let full = balance(services, tasks, published);
    let all = fill(&mut plane, &full)?;
    let mut times = Vec::new();
    for turn in 0..CHANGES {
        let mut other = full.clone();
        remove_task(&mut other, turn.wrapping_mul(7919) % services);
        times.push(fill(&mut plane, &other)?);
        times.push(fill(&mut plane, &full)?);
    }
    times.sort();
    Ok((all, times[times.len() / 2]))
}

/// How long this process worked on it.
fn fill(plane: &mut EbpfPlane, want: &Balance) -> Result<Duration> {
    let before = worked()?;
    let applied = plane.fill(want, BTreeMap::new()).map_err(|error| anyhow!(error.in_full()))?;
    let time = worked()? - before;
    ensure!(applied.errors.is_empty(), "not all was written: {:?}", applied.errors);
    ensure!(applied.changed > 0, "nothing was written");
    Ok(time)
}

fn worked() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

fn balance(services: u32, tasks: u32, published: bool) -> Balance {
    let mut balance = Balance {
        node: Some(node(0)),
        tunnel_mtu: 1450,
        peers: (1..NODES).map(node).collect(),
        ..Balance::default()
    };
    for service in 0..services {
        let backends: Vec<Backend> = (0..tasks).map(|task| backend(service, task)).collect();
        for backend in &backends {
            let peer = 1 + u32::from_be_bytes(octets(backend.address)) % (NODES - 1);
            let device = format!("m{}", backend.id);
            let site = Site { mac: Mac::of_task(&device), device, peer: Some(node(peer)), weight: 1 };
            balance.sites.insert((VNI, backend.address), site);
        }
        let pool = Pool {
            service: name(service),
            vni: VNI,
            target: None,
            balancing: Balancing::Random,
            affinity: Affinity::None,
            return_path: Default::default(),
            idle: None,
            allow: Vec::new(),
            backends,
        };
        for frontend in frontends(service, published) {
            balance.frontends.insert(frontend, pool.clone());
        }
    }
    balance
}

/// The last task of a service ends.
fn remove_task(balance: &mut Balance, service: u32) {
    let mut gone = None;
    for frontend in frontends(service, true) {
        gone = balance.frontends.get_mut(&frontend).and_then(|pool| pool.backends.pop()).or(gone);
    }
    if let Some(gone) = gone {
        balance.sites.remove(&(VNI, gone.address));
    }
}

fn frontends(service: u32, published: bool) -> Vec<Frontend> {
    let vip = Frontend::Vip { vni: VNI, address: address([10, 96, 0, 0], service) };
    let port = Frontend::Published {
        protocol: Protocol::Tcp,
        port: 10_000 + service as u16,
        address: None,
        family: Family::V4,
    };
    if published { vec![vip, port] } else { vec![vip] }
}

fn backend(service: u32, task: u32) -> Backend {
    Backend {
        id: TaskId::new(format!("{service:08x}{task:08x}")),
        task: format!("svc{service}.{task}"),
        address: address([10, 0, 0, 0], (service << 6) + task + 1),
        node: NodeId::new("n"),
        local: false,
        weight: 1,
    }
}

fn name(service: u32) -> Name {
    // It is one: see `Name`.
    format!("svc{service}").parse().expect("letters and digits")
}

fn node(number: u32) -> IpAddr {
    address([192, 0, 2, 0], number + 1)
}

fn address(net: [u8; 4], host: u32) -> IpAddr {
    Ipv4Addr::from(u32::from_be_bytes(net) + host).into()
}

fn octets(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}
