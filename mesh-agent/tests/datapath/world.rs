//! Nodes, tasks and services, and what carries packets between them.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use aya::util::KernelVersion;
use mesh_ebpf::abi::*;
use mesh_ebpf::tunnel::Tag;
use mesh_ebpf::verdict::{Action, Event, Refusal, To};
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::unistd::Pid;

use crate::frame::{frame, read};
use crate::model::Tables;
use crate::node::{HOST_END, Hook, Node};

pub(crate) const VNI: u32 = 4096;
/// A device of each node that leads out.
pub(crate) const UPLINK: u32 = 50;
const SLOTS: u32 = 64;
const BUCKETS: u32 = 1024;

/// A service, number `n`: VIPs `10.200.0.<n+1>` and `fd00:200::<n+1>`; published at `8000 + n`, UDP and TCP.
#[derive(Clone, Default)]
pub(crate) struct Service {
    pub(crate) tasks: Vec<usize>,
    pub(crate) flags: u16,
    pub(crate) affinity: u32,
    pub(crate) allow: Vec<(IpAddr, u32)>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Somebody beyond the uplink of a node.
    Net(usize),
    /// A task.
    Task(usize),
    /// A process of a node.
    Stack(usize),
}

/// Where a packet's way ends, and its bytes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    At(Who, Vec<u8>),
    Refused(Refusal, Vec<u8>),
    Echoed(Vec<u8>),
    Dropped(Event),
    /// Left to the node's kernel.
    Passed(usize),
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    /// On which node each is.
    pub(crate) tasks: Vec<usize>,
}

pub(crate) fn own(node: usize, v6: bool) -> IpAddr {
    text(v6, format!("198.51.100.{}", node + 1), format!("2001:db8:f::{}", node + 1))
}

pub(crate) fn inside(node: usize, v6: bool) -> IpAddr {
    text(v6, format!("10.0.{node}.254"), format!("fd00::{node}:ffff"))
}

pub(crate) fn task(node: usize, task: usize, v6: bool) -> IpAddr {
    text(v6, format!("10.0.{node}.{}", task + 1), format!("fd00::{node}:{}", task + 1))
}

pub(crate) fn vip(service: usize, v6: bool) -> IpAddr {
    text(v6, format!("10.200.0.{}", service + 1), format!("fd00:200::{}", service + 1))
}

fn text(v6: bool, four: String, six: String) -> IpAddr {
    if v6 { six } else { four }.parse().expect("an address")
}

pub(crate) const fn device(task: usize) -> u32 {
    100 + task as u32
}

/// The id of a task's backend.
pub(crate) const fn backend(task: usize, v6: bool) -> u32 {
    1 + 2 * task as u32 + v6 as u32
}

pub(crate) const fn mac(task: usize) -> Mac {
    [2, 1, 1, 1, 1, task as u8]
}

const fn vtep(node: usize) -> Mac {
    [2, 9, 9, 9, 9, node as u8]
}

impl World {
    /// With tasks on these nodes. The thread gets a CPU, and a network namespace with their devices.
    pub(crate) fn new(nodes: usize, tasks: &[usize], services: &[Service]) -> Self {
        settle_down(tasks.len());
        let nodes = (0..nodes).map(|number| Node::load(tables(number, nodes, tasks, services))).collect();
        Self { nodes, tasks: tasks.to_vec() }
    }

    /// Sends a packet with right checksums.
    pub(crate) fn send(&mut self, who: Who, proto: u8, flags: u8, src: SocketAddr, dst: SocketAddr) -> End {
        self.carry(who, frame(proto, flags, src, dst, b"payload"))
    }

    /// Carries a packet to its end.
    pub(crate) fn carry(&mut self, who: Who, bytes: Vec<u8>) -> End {
        let (mut at, hook) = match who {
            Who::Net(node) => (node, Hook::Net(UPLINK)),
            Who::Task(task) => (self.tasks[task], Hook::Task(device(task))),
            Who::Stack(node) => (node, Hook::Host),
        };
        let mut out = self.nodes[at].run(hook, &bytes);
        for _ in 0..4 {
            let to = match out.action {
                Action::Drop(event) => return End::Dropped(event),
                Action::Refuse(how) => return End::Refused(how, out.bytes),
                Action::Echo => return End::Echoed(out.bytes),
                Action::Send(to) => to,
                Action::Pass => match self.route(at, &out.bytes) {
                    Some(Ok(end)) => return end,
                    Some(Err(to)) => to,
                    None => return End::Passed(at),
                },
            };
            match to {
                To::Task { device, .. } => return End::At(Who::Task((device - 100) as usize), out.bytes),
                To::Uplink { .. } => return End::At(Who::Net(at), out.bytes),
                To::Stack => return End::At(Who::Stack(at), out.bytes),
                To::Peer { peer, tag, .. } => {
                    let from = 1 + at as u32;
                    assert_ne!(peer, from, "a packet to itself");
                    at = peer as usize - 1;
                    out = self.nodes[at].run_mesh(from, tag.vni(), &out.bytes);
                }
            }
        }
        panic!("it goes in circles");
    }

    /// What the overlay does with a packet that is left to it.
    fn route(&self, at: usize, bytes: &[u8]) -> Option<Result<End, To>> {
        let dst = read(bytes)?.dst.ip();
        let here = |task: &usize| dst == self::task(self.tasks[*task], *task, dst.is_ipv6());
        let tunnelled =
            |node: usize| To::Peer { peer: 1 + node as u32, tag: Tag::Network(VNI), mac: vtep(node) };
        if let Some(node) = (0..self.nodes.len()).find(|node| dst == inside(*node, dst.is_ipv6())) {
            return (node != at).then_some(Err(tunnelled(node)));
        }
        let task = (0..self.tasks.len()).find(here)?;
        let node = self.tasks[task];
        if node == at {
            let macs = [mac(task), HOST_END].concat();
            return Some(Ok(End::At(Who::Task(task), [&macs, &bytes[12..]].concat())));
        }
        Some(Err(tunnelled(node)))
    }

    /// Checks that programs and pipeline agree on all nodes.
    pub(crate) fn agree(&self) {
        self.nodes.iter().for_each(Node::agree);
    }
}

/// A network namespace and a CPU for the thread, which counts on both.
fn settle_down(tasks: usize) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: is this root?");
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().expect("a CPU")).expect("it is one");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("a thread may stay");
    let devices = (0..tasks).map(device).chain([UPLINK]);
    for index in devices {
        let args = format!("link add d{index} index {index} type veth peer name p{index}");
        let done = Command::new("ip").args(args.split(' ')).status().expect("ip runs");
        assert!(done.success(), "ip {args}");
    }
}

fn tables(number: usize, nodes: usize, tasks: &[usize], services: &[Service]) -> Tables {
    let new = KernelVersion::current().expect("a version") >= KernelVersion::new(6, 16, 0);
    let config = Config {
        table_seed: 0x1234_5678_9abc_def0 ^ number as u64,
        node_seed: 0xfeed_0000_0000_0001 << number,
        mesh_seed: 77,
        tcp_mask: BUCKETS - 1,
        udp_mask: BUCKETS - 1,
        tunnel: 9,
        tunnel_mtu: 1450,
        csum_v6: if new { 0x80 } else { 0 },
        mac: vtep(number),
        ..Config::NEW
    };
    let mut tables = Tables {
        config,
        frontends: Default::default(),
        lines: Vec::new(),
        backends: Default::default(),
        peers: Default::default(),
        endpoints: Default::default(),
        networks: [(VNI, Network { v4: inside(number, false).into(), v6: inside(number, true).into() })]
            .into(),
        locals: [own(number, false).into(), own(number, true).into()].into(),
        sources: Default::default(),
    };
    for node in 0..nodes {
        tables
            .peers
            .insert(1 + node as u32, Peer { addr: own(node, false).into(), mac: vtep(node), pad: [0; 2] });
    }
    for (index, node) in tasks.iter().enumerate() {
        for v6 in [false, true] {
            let value = Backend {
                addr: task(*node, index, v6).into(),
                generation: 1,
                vni: VNI,
                device: if *node == number { device(index) } else { 0 },
                peer: if *node == number { 0 } else { 1 + *node as u32 },
                mac: mac(index),
                state: BackendState::Active as u8,
                pad: 0,
                weight: 1,
                rest: [0; 5],
            };
            tables.backends.insert(backend(index, v6), value);
        }
        if *node == number {
            let [v4, v6] = [false, true].map(|v6| task(number, index, v6).into());
            let endpoint = Endpoint { v4, v6, vni: VNI, device: device(index), mac: mac(index), pad: [0; 2] };
            tables.endpoints.insert(device(index), endpoint);
        }
    }
    for (index, service) in services.iter().enumerate() {
        publish(&mut tables, index, service);
    }
    tables
}

fn publish(tables: &mut Tables, index: usize, service: &Service) {
    for v6 in [false, true] {
        let value = Frontend {
            slots: tables.lines.len() as u32 * SLOT_LINE,
            mask: SLOTS - 1,
            backends: service.tasks.len() as u32,
            vni: VNI,
            id: 1 + index as u32,
            affinity: service.affinity,
            target: NetPort::new(80),
            flags: service.flags,
        };
        for line in 0..SLOTS / SLOT_LINE {
            let slot = |slot: usize| {
                let turn = line as usize * SLOT_LINE as usize + slot;
                service
                    .tasks
                    .get(turn % service.tasks.len().max(1))
                    .map_or(NO_BACKEND, |task| backend(*task, v6))
            };
            tables.lines.push(std::array::from_fn(slot));
        }
        let any = if v6 { Addr16::ANY_V6 } else { Addr16::ANY_V4 };
        for proto in [TCP, UDP] {
            tables
                .frontends
                .insert(FrontendKey::published(any, NetPort::new(8000 + index as u16), proto), value);
        }
        // A VIP has all ports of its tasks.
        let value = Frontend { target: NetPort::ANY, flags: service.flags & !Frontend::GUARDED, ..value };
        tables.frontends.insert(FrontendKey::vip(vip(index, v6).into()), value);
    }
    for (addr, bits) in &service.allow {
        let bits = SourceKey::FIXED_BITS + bits + if addr.is_ipv4() { 96 } else { 0 };
        tables.sources.insert((bits, SourceKey { frontend: 1 + index as u32, addr: (*addr).into() }));
    }
}
