//! What the agent takes to turn a plan into maps: its own code, without the plan itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use mesh_agent::config::KernelFeature;
use mesh_agent::dataplane::ebpf::{EbpfPlane, FLOWS};
use mesh_core::model::{Affinity, Balancing, Name, NodeId, Protocol, TaskId, Vni};
use mesh_core::plan::{Backend, Balance, Family, Frontend, Mac, Pool, Site};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

use super::report::ServiceChange;

const VNI: Vni = Vni(4096);
const CHANGES: u32 = 101;
const NODES: u32 = 10;
/// 10.0.0.0 and 10.96.0.0.
const TASKS: u32 = 0x0a00_0000;
const VIPS: u32 = 0x0a60_0000;

/// How many services, tasks of each, and the families of their VIPs, published ports and tasks.
const SIZES: [(u32, u32, &[Family]); 5] = [
    (1, 10, &[Family::V4]),
    (100, 10, &[Family::V4]),
    (1000, 10, &[Family::V4]),
    (10_000, 2, &[Family::V4]),
    (10_000, 2, &Family::ALL),
];

/// Measures all sizes.
pub(super) fn measure() -> Result<Vec<ServiceChange>> {
    // The agent keeps its maps in a file system that it mounts: in a namespace, that ends with this process.
    unshare(CloneFlags::CLONE_NEWNS).context("cannot have mounts of its own")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot keep its mounts to itself")?;
    SIZES.into_iter().map(|(services, tasks, families)| one(services, tasks, families)).collect()
}

fn one(services: u32, tasks: u32, families: &[Family]) -> Result<ServiceChange> {
    let dir = tempfile::tempdir()?;
    let pins = dir.path().join("bpf");
    let measured = changes(&pins, services, tasks, families);
    mesh_agent::dataplane::ebpf::remove_all(&pins);
    let (all, change) = measured?;
    let (change_us, all_ms) = (change.as_micros() as u64, all.as_millis() as u64);
    let families = families.len();
    eprintln!("{services} services of {families} families: one change {change_us} us, all {all_ms} ms");
    Ok(ServiceChange { services, families, change_us, all_ms })
}

/// The time for all, and the median of those for one change. What does not change is shared by the plans, as by those
/// of a [`mesh_core::plan::Planner`].
fn changes(pins: &Path, services: u32, tasks: u32, families: &[Family]) -> Result<(Duration, Duration)> {
    let mut plane = EbpfPlane::open(pins, Path::new(""), &[KernelFeature::SockLb], FLOWS)
        .map_err(|error| anyhow!(error.in_full()))?;
    let full = balance(services, tasks, families);
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

fn balance(services: u32, tasks: u32, families: &[Family]) -> Balance {
    let mut balance = Balance {
        node: Some(node(0)),
        tunnel_mtu: 1450,
        peers: (1..NODES).map(node).collect(),
        ..Balance::default()
    };
    for (service, family) in
        (0..services).flat_map(|service| families.iter().map(move |family| (service, *family)))
    {
        let backends: Arc<[Backend]> = (0..tasks).map(|task| backend(service, task, family)).collect();
        for (task, backend) in (0..).zip(backends.iter()) {
            let peer = node(1 + (service + task) % (NODES - 1));
            let device = format!("m{}", backend.id);
            let site = Site {
                mac: Mac::of_task(&device),
                device: device.into(),
                peer: Some(peer),
                weight: 1,
                silent: false,
            };
            balance.sites.insert((VNI, backend.address), Arc::new(site));
        }
        let pool = Arc::new(Pool {
            service: name(service),
            vni: VNI,
            target: None,
            balancing: Balancing::Random,
            affinity: Affinity::None,
            return_path: Default::default(),
            idle: None,
            allow: Vec::new(),
            backends,
        });
        for frontend in frontends(service).into_iter().filter(|frontend| family_of(frontend) == family) {
            balance.frontends.insert(frontend, Arc::clone(&pool));
        }
    }
    balance
}

/// The last task of a service ends.
fn remove_task(balance: &mut Balance, service: u32) {
    for frontend in frontends(service) {
        let Some(pool) = balance.frontends.get_mut(&frontend) else { continue };
        if let Some((gone, left)) = Arc::clone(&pool.backends).split_last() {
            Arc::make_mut(pool).backends = left.into();
            balance.sites.remove(&(VNI, gone.address));
        }
    }
}

fn frontends(service: u32) -> Vec<Frontend> {
    let port = |family| Frontend::Published {
        protocol: Protocol::Tcp,
        port: 10_000 + service as u16,
        address: None,
        family,
    };
    let vip = |family| Frontend::Vip { vni: VNI, address: address(family, VIPS, service) };
    Family::ALL.into_iter().flat_map(|family| [vip(family), port(family)]).collect()
}

fn family_of(frontend: &Frontend) -> Family {
    match frontend {
        Frontend::Vip { address, .. } => Family::of(*address),
        Frontend::Published { family, .. } => *family,
    }
}

fn backend(service: u32, task: u32, family: Family) -> Backend {
    Backend {
        id: TaskId::new(format!("{service:08x}{task:08x}")),
        slot: task,
        address: address(family, TASKS, (service << 6) + task + 1),
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
    Ipv4Addr::from(0xc000_0200 + number + 1).into()
}

/// A host of a network, in either family.
fn address(family: Family, net: u32, host: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(net + host).into(),
        Family::V6 => Ipv6Addr::from(0xfd << 120 | u128::from(net + host)).into(),
    }
}
