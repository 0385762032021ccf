//! Nodes with tasks and services, as agents would tell their programs of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use mesh_ebpf::abi::*;
use mesh_ebpf::fragment::{FragmentKey, FragmentValue};
use mesh_ebpf::testing::Node;
use mesh_ebpf::verdict::Event;

/// How many there are.
pub const NODES: usize = 3;
/// The tasks of every service, and one of none on the first node.
pub const TASKS: usize = 5;
/// The last task: it is a client only.
pub const MEMBER: usize = TASKS - 1;
/// What each service wishes: flags, and for how many ticks a client stays with its task.
pub const SERVICES: [(u16, u32); 5] =
    [(0, 0), (Frontend::DSR, 0), (Frontend::SNAT, 0), (Frontend::HASHED | Frontend::LEAST, 0), (0, 100)];
/// The port of the tasks.
pub const TARGET: u16 = 80;
/// The network of all tasks.
pub const VNI: u32 = 4096;

const SLOTS: usize = 16;

/// Who sends, or gets something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// Somebody beyond the devices of a node.
    Net(usize),
    /// A task.
    Task(usize),
    /// A process of a node.
    Stack(usize),
}

/// A node, and what became of first fragments there.
pub struct World {
    pub nodes: Vec<Node>,
    pub fragments: Vec<RefCell<HashMap<FragmentKey, FragmentValue>>>,
}

/// One of both families' addresses.
fn of_family(v6: bool, four: [u8; 4], [first, second, last, number]: [u16; 4]) -> IpAddr {
    if v6 { [first, second, 0, 0, 0, 0, last, number].into() } else { four.into() }
}

/// A node's own address.
pub fn own(node: usize, v6: bool) -> IpAddr {
    let number = 2 * node as u8 + 1;
    of_family(v6, [198, 51, 100, number], [0x2001, 0xdb8, 0xf, number.into()])
}

/// A node's own address in the network.
pub fn inside(node: usize, v6: bool) -> IpAddr {
    of_family(v6, [10, 0, node as u8, 254], [0xfd00, 0, node as u16, 0xffff])
}

/// A task's address.
pub fn address(task: usize, v6: bool) -> IpAddr {
    let (node, number) = (home(task) as u8, task as u8 + 1);
    of_family(v6, [10, 0, node, number], [0xfd00, 0, node.into(), number.into()])
}

/// A service's address.
pub fn vip(service: usize, v6: bool) -> IpAddr {
    let number = service as u8 + 1;
    of_family(v6, [10, 200, 0, number], [0xfd00, 0x200, 0, number.into()])
}

/// The port at which a service is published.
pub fn published(service: usize) -> u16 {
    8000 + service as u16
}

/// Where a task is.
pub fn home(task: usize) -> usize {
    if task == MEMBER { 0 } else { task % NODES }
}

/// The host's end of a task's veth.
pub fn device(task: usize) -> u32 {
    100 + task as u32
}

/// The task's end.
pub fn mac(task: usize) -> Mac {
    [2, 1, 1, 1, 1, task as u8]
}

/// A node's tunnel device.
pub fn tunnel_mac(node: usize) -> Mac {
    [2, 9, 9, 9, 9, node as u8]
}

/// One of several clients of a service, with the place where it sends to.
pub fn client(kind: usize, port: u16, service: usize, v6: bool) -> (Who, SocketAddr, SocketAddr) {
    let at = SocketAddr::new;
    let outside = of_family(v6, [192, 0, 2, 7], [0x2001, 0xdb8, 0, 7]);
    let local = of_family(v6, [127, 0, 0, 1], [0, 0, 0, 1]);
    match kind % 7 {
        // One client by two nodes, with the same ports.
        node @ (0 | 1) => (Who::Net(node), at(outside, port), at(own(node, v6), published(service))),
        2 => (Who::Task(MEMBER), at(address(MEMBER, v6), port), at(vip(service, v6), TARGET)),
        // With ports of its own: two nodes that translate for one task do not know of each other.
        3 => (Who::Task(MEMBER), at(address(MEMBER, v6), port + 100), at(own(0, v6), published(service))),
        // One of the backends.
        4 => (Who::Task(0), at(address(0, v6), port), at(vip(service, v6), TARGET)),
        5 => (Who::Stack(1), at(local, port), at(local, published(service))),
        _ => (Who::Stack(1), at(own(1, v6), port), at(own(1, v6), published(service))),
    }
}

impl World {
    /// With tables of so many buckets, a power of two, and all tasks in the balance.
    pub fn new(buckets: u32) -> Self {
        let nodes = (0..NODES).map(|number| node(number, buckets)).collect();
        Self { nodes, fragments: vec![RefCell::default(); NODES] }
    }

    /// Has a node know of a task's state; others may know otherwise. One that comes after one that has gone is another.
    pub fn tell(&mut self, at: usize, task: usize, state: BackendState) {
        let (node, gone) = (&mut self.nodes[at], state == BackendState::Gone);
        for v6 in [false, true] {
            let backend = &mut node.backends[backend(task, v6) as usize];
            backend.generation += u32::from(gone && backend.state != state as u8);
            backend.state = state as u8;
        }
        if gone {
            node.endpoints.remove(&device(task));
        } else if home(task) == at {
            node.endpoints.insert(device(task), endpoint(task));
        }
        balance(node);
    }

    /// What a node knows of a task.
    pub fn known(&self, at: usize, task: usize, v6: bool) -> &Backend {
        &self.nodes[at].backends[backend(task, v6) as usize]
    }

    /// Whether some flow gave way to another, or found no place.
    pub fn is_crowded(&self) -> bool {
        let crowded = |node: &Node| node.counted(Event::Evicted) + node.counted(Event::TableFull) > 0;
        self.nodes.iter().any(crowded)
    }

    /// How often anything was counted by anybody.
    pub fn counted(&self) -> u32 {
        self.nodes.iter().map(|node| node.events.borrow().values().sum::<u32>()).sum()
    }

    /// Time passes on all nodes.
    pub fn pass(&self, ticks: u32) {
        self.nodes.iter().for_each(|node| node.now.set(node.now.get() + ticks));
    }
}

fn node(number: usize, buckets: u32) -> Node {
    let mut node = Node::new(number as u32, buckets);
    node.locals = [own(number, false).into(), own(number, true).into()].into();
    let network = Network { v4: inside(number, false).into(), v6: inside(number, true).into() };
    node.networks = [(VNI, network)].into();
    node.peers.extend((0..NODES).map(|peer| Peer {
        addr: own(peer, false).into(),
        mac: tunnel_mac(peer),
        pad: [0; 2],
    }));
    for (task, v6) in (0..TASKS).flat_map(|task| [(task, false), (task, true)]) {
        let here = home(task) == number;
        node.backends.push(Backend {
            addr: address(task, v6).into(),
            generation: 1,
            vni: VNI,
            device: if here { device(task) } else { 0 },
            peer: if here { 0 } else { 1 + home(task) as u32 },
            mac: mac(task),
            state: BackendState::Active as u8,
            pad: 0,
            weight: 1,
            rest: [0; 5],
        });
    }
    let here = (0..TASKS).filter(|task| home(*task) == number);
    node.endpoints = here.map(|task| (device(task), endpoint(task))).collect();
    balance(&mut node);
    node
}

const fn backend(task: usize, v6: bool) -> u32 {
    1 + 2 * task as u32 + v6 as u32
}

fn endpoint(task: usize) -> Endpoint {
    let (v4, v6) = (address(task, false).into(), address(task, true).into());
    Endpoint { v4, v6, vni: VNI, device: device(task), mac: mac(task), pad: [0; 2] }
}

/// Has each service be reached by all tasks in the balance but the member.
fn balance(node: &mut Node) {
    node.slots.clear();
    for (service, v6) in (0..SERVICES.len()).flat_map(|service| [(service, false), (service, true)]) {
        let mut ids = (0..MEMBER).map(|task| backend(task, v6)).collect::<Vec<_>>();
        ids.retain(|id| node.backends[*id as usize].is_active());
        let (flags, affinity) = SERVICES[service];
        let published = Frontend {
            slots: node.slots.len() as u32,
            mask: SLOTS as u32 - 1,
            backends: ids.len() as u32,
            vni: VNI,
            id: 1 + service as u32,
            affinity,
            target: NetPort::new(TARGET),
            flags,
        };
        node.slots.extend((0..SLOTS).map(|slot| ids.get(slot % ids.len().max(1)).unwrap_or(&NO_BACKEND)));
        let any = if v6 { Addr16::ANY_V6 } else { Addr16::ANY_V4 };
        for proto in [TCP, UDP] {
            let port = NetPort::new(self::published(service));
            node.frontends.insert(FrontendKey::published(any, port, proto), published);
        }
        let virtual_ip = FrontendKey::vip(vip(service, v6).into());
        node.frontends.insert(virtual_ip, Frontend { target: NetPort::ANY, ..published });
    }
}
