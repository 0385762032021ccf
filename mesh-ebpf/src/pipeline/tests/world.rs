//! Some nodes with tasks and services, and what carries packets between them.

use std::net::{IpAddr, SocketAddr};

use crate::abi::*;
use crate::packet::Packet;
use crate::pipeline;
use crate::testing::{Build, Node, addr, icmp, tcp, udp};
use crate::verdict::{Action, Event, Refusal, To};

/// The network of all tasks.
pub(super) const VNI: u32 = 4096;
const SLOTS: usize = 64;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// Somebody beyond a device of a node.
    Net { node: usize, device: u32 },
    /// A task.
    Task(usize),
    /// A process of a node.
    Stack(usize),
}

/// Where a packet's way ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At a client or task, with these addresses.
    At(Who, SocketAddr, SocketAddr),
    Refused(Refusal),
    Dropped(Event),
    Echoed,
    /// Left to the node's kernel, which knows no such address or port.
    Passed,
}

/// A task: two backends, one for each family.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) node: usize,
    pub(super) state: BackendState,
    pub(super) generation: u32,
}

/// A service, number `n`: VIPs `10.200.0.<n+1>` and `fd00:200::<n+1>`; published at `8000 + n`, UDP and TCP.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) tasks: Vec<usize>,
    pub(super) flags: u16,
    pub(super) affinity: u32,
    pub(super) target: u16,
    pub(super) allowed: Vec<&'static str>,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) tasks: Vec<Task>,
    pub(super) services: Vec<Service>,
}

/// The address of something, by family.
pub(super) fn own(node: usize, v6: bool) -> IpAddr {
    text(v6, format!("198.51.100.{}", 2 * node + 1), format!("2001:db8:f::{}", 2 * node + 1))
}

/// A node's own address in the network.
pub(super) fn inside(node: usize, v6: bool) -> IpAddr {
    text(v6, format!("10.0.{node}.254"), format!("fd00::{node}:ffff"))
}

pub(super) fn task(node: usize, task: usize, v6: bool) -> IpAddr {
    text(v6, format!("10.0.{node}.{}", task + 1), format!("fd00::{node}:{}", task + 1))
}

pub(super) fn vip(service: usize, v6: bool) -> IpAddr {
    text(v6, format!("10.200.0.{}", service + 1), format!("fd00:200::{}", service + 1))
}

fn text(v6: bool, four: String, six: String) -> IpAddr {
    if v6 { six } else { four }.parse().unwrap()
}

pub(super) const fn device(task: usize) -> u32 {
    100 + task as u32
}

pub(super) const fn backend(task: usize, v6: bool) -> u32 {
    1 + 2 * task as u32 + v6 as u32
}

pub(super) const fn mac(task: usize) -> Mac {
    [2, 1, 1, 1, 1, task as u8]
}

impl World {
    /// With tasks on these nodes.
    pub(super) fn new(nodes: usize, tasks: &[usize], services: Vec<Service>) -> Self {
        Self::with_tables(nodes, tasks, services, 1024)
    }

    pub(super) fn with_tables(nodes: usize, tasks: &[usize], services: Vec<Service>, buckets: u32) -> Self {
        let nodes = (0..nodes).map(|number| Node::new(number as u32, buckets)).collect();
        let tasks = tasks
            .iter()
            .map(|node| Task { node: *node, state: BackendState::Active, generation: 1 })
            .collect();
        let mut world = Self { nodes, tasks, services };
        world.write();
        world
    }

    /// Has all nodes know how things are: what the agents do.
    pub(super) fn write(&mut self) {
        let peers: Vec<Peer> = (0..=self.nodes.len())
            .map(|number| match number {
                0 => Peer::default(),
                _ => Peer {
                    addr: own(number - 1, false).into(),
                    mac: [2, 9, 9, 9, 9, number as u8 - 1],
                    pad: [0; 2],
                },
            })
            .collect();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.peers.clone_from(&peers);
            node.locals = [own(number, false).into(), own(number, true).into()].into();
            let network = Network { v4: inside(number, false).into(), v6: inside(number, true).into() };
            node.networks = [(VNI, network)].into();
            node.backends = vec![Backend::default(); 1 + 2 * self.tasks.len()];
            node.endpoints.clear();
            node.frontends.clear();
            node.sources.clear();
            node.slots.clear();
            for (index, task) in self.tasks.iter().enumerate() {
                for v6 in [false, true] {
                    node.backends[backend(index, v6) as usize] = Backend {
                        addr: self::task(task.node, index, v6).into(),
                        generation: task.generation,
                        vni: VNI,
                        device: if task.node == number { device(index) } else { 0 },
                        peer: if task.node == number { 0 } else { 1 + task.node as u32 },
                        mac: mac(index),
                        state: task.state as u8,
                        pad: 0,
                        weight: 1,
                        rest: [0; 5],
                    };
                }
                if task.node == number && task.state != BackendState::Gone {
                    let endpoint = Endpoint {
                        v4: self::task(number, index, false).into(),
                        v6: self::task(number, index, true).into(),
                        vni: VNI,
                        device: device(index),
                        mac: mac(index),
                        pad: [0; 2],
                    };
                    node.endpoints.insert(device(index), endpoint);
                }
            }
            for (index, service) in self.services.iter().enumerate() {
                service_at(node, index, service, &self.tasks);
            }
        }
    }

    /// Time passes on all nodes.
    pub(super) fn pass(&self, ticks: u32) {
        for node in &self.nodes {
            node.now.set(node.now.get() + ticks);
        }
    }

    /// Sends a packet, and says where it ends.
    pub(super) fn send(&self, who: Who, proto: u8, flags: u8, src: SocketAddr, dst: SocketAddr) -> End {
        let (src, dst) = (src.to_string(), dst.to_string());
        self.carry(who, if proto == TCP { tcp(&src, &dst, flags) } else { udp(&src, &dst) })
    }

    /// A ping.
    pub(super) fn ping(&self, who: Who, src: IpAddr, dst: IpAddr) -> End {
        let kind = if src.is_ipv4() { 8 } else { 128 };
        self.carry(who, icmp(&src.to_string(), &dst.to_string(), kind))
    }

    /// Sends a packet as it is built.
    pub(super) fn carry(&self, who: Who, build: Build) -> End {
        let mut packet = build.packet();
        let (mut at, verdict) = match who {
            Who::Net { node, device } => (node, pipeline::from_net(&self.nodes[node], &mut packet, device)),
            Who::Task(index) => {
                let node = self.tasks[index].node;
                (node, pipeline::from_task(&self.nodes[node], &mut packet, device(index)))
            }
            Who::Stack(node) => (node, pipeline::from_host(&self.nodes[node], &mut packet)),
        };
        // A process reaches a task without any of ours, as a task reaches another.
        let mut verdict = match verdict.action(&packet.hop) {
            Action::Pass => match self.route(at, &packet, who) {
                Ok(end) => return end,
                Err(to) => {
                    packet.hop.from = [0; 6];
                    Action::Send(to)
                }
            },
            other => other,
        };
        for _ in 0..4 {
            let to = match verdict {
                Action::Pass => return End::Passed,
                Action::Drop(event) => return End::Dropped(event),
                Action::Refuse(refusal) => return End::Refused(refusal),
                Action::Echo => return End::Echoed,
                Action::Send(to) => to,
            };
            let (src, dst) = ends(&packet.sent);
            assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one family");
            match to {
                To::Task { device, mac } => {
                    let index = (device - 100) as usize;
                    assert_eq!((self.tasks[index].node, self::mac(index)), (at, mac), "a task of this node");
                    return End::At(Who::Task(index), src, dst);
                }
                To::Uplink { device } => return End::At(Who::Net { node: at, device }, src, dst),
                To::Stack => return End::At(Who::Stack(at), src, dst),
                To::Peer { peer, tag, mac } => {
                    let from = 1 + at as u32;
                    assert_ne!(peer, from, "a packet to itself");
                    let macs = [mac, packet.hop.source(self.nodes[at].config.mac)];
                    at = peer as usize - 1;
                    packet = Build { src, dst, ..build.clone() }.packet();
                    let node = &self.nodes[at];
                    let judged = pipeline::from_mesh(node, &mut packet, from, tag.vni(), macs);
                    verdict = judged.action(&packet.hop);
                    if verdict == Action::Pass {
                        return self.route(at, &packet, Who::Stack(at)).unwrap_or(End::Passed);
                    }
                }
            }
        }
        panic!("it goes in circles");
    }

    /// What the overlay does.
    fn route(&self, at: usize, packet: &Packet, who: Who) -> Result<End, To> {
        let (src, dst) = ends(&packet.tuple);
        let v6 = dst.is_ipv6();
        for (index, task) in self.tasks.iter().enumerate() {
            if dst.ip() == self::task(task.node, index, v6) {
                return self.overlay(at, task.node).map_or(Ok(End::At(Who::Task(index), src, dst)), Err);
            }
        }
        for node in 0..self.nodes.len() {
            if dst.ip() == inside(node, v6) && matches!(who, Who::Task(_)) {
                return self.overlay(at, node).map_or(Ok(End::Passed), Err);
            }
        }
        Ok(End::Passed)
    }

    fn overlay(&self, from: usize, to: usize) -> Option<To> {
        let tag = crate::tunnel::Tag::Network(VNI);
        (from != to).then_some(To::Peer { peer: 1 + to as u32, tag, mac: [2, 9, 9, 9, 9, to as u8] })
    }

    /// Sends a packet and answers it. Checks that the answer comes back to the client, from where it sent to.
    /// The task, and the addresses that it saw.
    pub(super) fn both_ways(
        &self,
        who: Who,
        proto: u8,
        flags: u8,
        src: SocketAddr,
        dst: SocketAddr,
    ) -> (usize, SocketAddr, SocketAddr) {
        match self.send(who, proto, flags, src, dst) {
            End::At(Who::Task(task), seen, own) => {
                self.answer(task, proto, flags | crate::packet::tcp::ACK, (seen, own), (who, src, dst));
                (task, seen, own)
            }
            other => panic!("{who:?} {src} -> {dst}: {other:?}"),
        }
    }

    /// Has a task answer, and checks that it arrives.
    pub(super) fn answer(
        &self,
        task: usize,
        proto: u8,
        flags: u8,
        (seen, own): (SocketAddr, SocketAddr),
        (who, src, dst): (Who, SocketAddr, SocketAddr),
    ) {
        let end = self.send(Who::Task(task), proto, flags, own, seen);
        assert_eq!(end, End::At(who, dst, src), "what {who:?} is answered by task {task}");
    }
}

fn ends(tuple: &crate::packet::Tuple) -> (SocketAddr, SocketAddr) {
    let end = |addr: Addr16, port: NetPort| SocketAddr::new(addr.into(), port.number());
    (end(tuple.src, tuple.sport()), end(tuple.dst, tuple.dport()))
}

/// Writes a service's frontends. A slot goes to the task of greatest weight there, as the agents' tables do:
/// few slots move when a task comes or goes.
fn service_at(node: &mut Node, index: usize, service: &Service, tasks: &[Task]) {
    let active: Vec<usize> =
        service.tasks.iter().copied().filter(|task| tasks[*task].state == BackendState::Active).collect();
    let port = NetPort::new(8000 + index as u16);
    for v6 in [false, true] {
        let frontend = Frontend {
            slots: node.slots.len() as u32,
            mask: SLOTS as u32 - 1,
            backends: active.len() as u32,
            vni: VNI,
            id: 1 + index as u32,
            affinity: service.affinity,
            target: NetPort::new(service.target),
            flags: service.flags,
        };
        for slot in 0..SLOTS {
            let weight = |task: &&usize| {
                let mix = (**task as u64 * 31 + slot as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (mix ^ mix >> 31).wrapping_mul(0xd6e8_feb8_6659_fd93)
            };
            node.slots.push(active.iter().max_by_key(weight).map_or(NO_BACKEND, |task| backend(*task, v6)));
        }
        let any = if v6 { Addr16::ANY_V6 } else { Addr16::ANY_V4 };
        for proto in [TCP, UDP] {
            node.frontends.insert(FrontendKey::published(any, port, proto), frontend);
        }
        // A VIP has all ports of its tasks.
        let frontend =
            Frontend { target: NetPort::ANY, flags: service.flags & !Frontend::GUARDED, ..frontend };
        node.frontends.insert(FrontendKey::vip(vip(index, v6).into()), frontend);
    }
    let sources =
        service.allowed.iter().map(|source| SourceKey { frontend: 1 + index as u32, addr: addr(source) });
    node.sources.extend(sources);
}
