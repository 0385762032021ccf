//! What becomes of sockets, and that packets of those that are left alone are balanced all the same.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::life::at;
use super::world::{End, Service, VNI, Who, World, device, inside, own, task, vip};
use crate::abi::*;
use crate::packet::Tuple;
use crate::packet::tcp::SYN;
use crate::sock::{self, Outcome, Place, Socket};
use crate::testing::Node;
use crate::verdict::Event;

/// The maps of sockets, of one node.
#[derive(Default)]
struct Known {
    netns: HashMap<NetnsKey, u32>,
    origins: RefCell<HashMap<SocketKey, SocketOrigin>>,
    choices: RefCell<HashMap<SocketKey, SocketChoice>>,
    full: Cell<bool>,
    told: RefCell<Vec<Record>>,
}

const NODE: u64 = 1;
const STRANGER: u64 = 2;

/// The cookie of a task's namespace.
const fn netns(task: usize) -> u64 {
    10 + task as u64
}

impl Known {
    /// The tasks of a node, and the node.
    fn of(world: &World, node: usize) -> Self {
        let tasks = world.tasks.iter().enumerate().filter(|(_, task)| task.node == node);
        let mut netns: HashMap<_, _> =
            tasks.map(|(index, _)| (NetnsKey::new(netns(index), VNI), device(index))).collect();
        netns.insert(NetnsKey::new(NODE, NetnsKey::NODE), 0);
        Self { netns, ..Self::default() }
    }
}

struct Asker<'a> {
    node: &'a Node,
    known: &'a Known,
    proto: u8,
    cookie: u64,
    netns: u64,
    tied: bool,
    random: u32,
}

impl Socket for Asker<'_> {
    type Kernel = Node;
    fn kernel(&self) -> &Node {
        self.node
    }
    fn proto(&self) -> u8 {
        self.proto
    }
    fn cookie(&self) -> u64 {
        self.cookie
    }
    fn netns(&self) -> u64 {
        self.netns
    }
    fn is_tied(&self) -> bool {
        self.tied
    }
    fn random(&self) -> u32 {
        self.random
    }
    fn device(&self, key: &NetnsKey) -> Option<u32> {
        self.known.netns.get(key).copied()
    }
    fn origin(&self, key: &SocketKey) -> Option<SocketOrigin> {
        self.known.origins.borrow().get(key).copied()
    }
    fn remember(&self, key: &SocketKey, origin: &SocketOrigin) -> bool {
        !self.known.full.get() && self.known.origins.borrow_mut().insert(*key, *origin).is_none_or(|_| true)
    }
    fn choice(&self, key: &SocketKey) -> Option<SocketChoice> {
        self.known.choices.borrow().get(key).copied()
    }
    fn choose(&self, key: &SocketKey, choice: &SocketChoice) {
        self.known.choices.borrow_mut().insert(*key, *choice);
    }
    fn tell(&self, record: &Record) {
        self.known.told.borrow_mut().push(*record);
    }
}

impl Asker<'_> {
    fn connect(&self, to: SocketAddr) -> (Outcome, SocketAddr) {
        ask(to, |place| sock::connect(self, place))
    }
    fn send(&self, to: SocketAddr) -> (Outcome, SocketAddr) {
        ask(to, |place| sock::send(self, place))
    }
    fn name(&self, of: SocketAddr) -> (Outcome, SocketAddr) {
        ask(of, |place| sock::name(self, place))
    }
}

fn ask(to: SocketAddr, call: impl FnOnce(&mut Place) -> Outcome) -> (Outcome, SocketAddr) {
    let mut place = Place { addr: to.ip().into(), port: NetPort::new(to.port()) };
    let outcome = call(&mut place);
    (outcome, at(IpAddr::from(place.addr), place.port.number()))
}

/// Two nodes, a service with a task on each, and a task of no service on the first.
fn world(service: Service) -> World {
    World::new(2, &[0, 1, 0], vec![Service { tasks: vec![0, 1], target: 80, ..service }])
}

fn asker<'a>(world: &'a World, known: &'a Known, netns: u64) -> Asker<'a> {
    Asker { node: &world.nodes[0], known, proto: TCP, cookie: 7, netns, tied: false, random: 0 }
}

const IDLE: u64 = netns(2);

#[test]
fn tasks_and_the_node_are_led_to_every_backend_and_told_the_vip() {
    for v6 in [false, true] {
        let world = world(Service::default());
        let known = Known::of(&world, 0);
        let backends = [0, 1].map(|index| at(task(index, index, v6), 81));
        let to = at(vip(0, v6), 81);
        for netns in [IDLE, NODE] {
            for proto in [TCP, UDP] {
                let mut seen = HashSet::new();
                for random in 0..64 {
                    let asker = Asker { random, proto, ..asker(&world, &known, netns) };
                    let (outcome, place) = asker.connect(to);
                    assert_eq!(outcome, Outcome::REPLACED);
                    assert_eq!(asker.name(place), (Outcome::REPLACED, to));
                    seen.insert(place);
                }
                assert_eq!(seen, backends.into());
            }
        }
        let flows = world.nodes[0].flows.borrow();
        assert_eq!((flows.values().sum::<u64>(), world.nodes[0].counted(Event::NewFlow)), (256, 256));
    }
}

#[test]
fn the_node_reaches_published_ports_by_its_own_addresses_only() {
    for v6 in [false, true] {
        let world = world(Service::default());
        let known = Known::of(&world, 0);
        let loopback: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
        for address in [own(0, v6), loopback] {
            let to = at(address, 8000);
            let (outcome, place) = asker(&world, &known, NODE).connect(to);
            assert_eq!((outcome, place.port()), (Outcome::REPLACED, 80));
            assert_eq!(asker(&world, &known, NODE).name(place).1, to);
            // Its loopback is another one, and it is not the node.
            assert_eq!(asker(&world, &known, IDLE).connect(to), (Outcome::LEAVE, to));
        }
        for to in [at(own(1, v6), 8000), at(own(0, v6), 8001), at(vip(3, v6), 8000)] {
            assert_eq!(asker(&world, &known, NODE).connect(to), (Outcome::LEAVE, to));
        }
    }
}

#[test]
fn what_is_in_doubt_is_left_to_the_packets() {
    let to = at(vip(0, false), 80);
    let left = |world: &World, change: &dyn Fn(&mut Asker<'_>)| {
        let known = Known::of(world, 0);
        for netns in [IDLE, NODE] {
            for to in [to, at(own(0, false), 8000)] {
                let mut asker = asker(world, &known, netns);
                change(&mut asker);
                assert_eq!(asker.connect(to), (Outcome::LEAVE, to));
                asker.proto = if asker.proto == TCP { UDP } else { asker.proto };
                assert_eq!(asker.send(to), (Outcome::LEAVE, to));
            }
        }
        assert!(known.origins.borrow().is_empty() && known.choices.borrow().is_empty());
    };
    let plain = world(Service::default());
    left(&plain, &|asker| asker.tied = true);
    left(&plain, &|asker| asker.netns = STRANGER);
    left(&plain, &|asker| asker.proto = 58);
    left(&plain, &|asker| asker.known.full.set(true));
    left(&world(Service { flags: Frontend::HASHED, ..Service::default() }), &|_| {});
    left(&world(Service { affinity: 9, ..Service::default() }), &|_| {});
    // And is served there.
    let src = at(task(0, 2, false), 1000);
    assert!(matches!(plain.send(Who::Task(2), TCP, SYN, src, to), End::At(Who::Task(_), ..)));

    let guarded =
        world(Service { flags: Frontend::GUARDED, allowed: vec!["198.51.100.1"], ..Service::default() });
    let known = Known::of(&guarded, 0);
    let to = at(own(0, false), 8000);
    assert_eq!(asker(&guarded, &known, NODE).connect(to), (Outcome::LEAVE, to));
    // People "connect" to port 0 to learn their own address.
    let to = at(vip(0, false), 0);
    assert_eq!(asker(&plain, &Known::of(&plain, 0), NODE).connect(to), (Outcome::LEAVE, to));
}

#[test]
fn a_task_is_not_led_to_itself() {
    let world = world(Service::default());
    let known = Known::of(&world, 0);
    let to = at(vip(0, true), 80);
    let mut seen = HashSet::new();
    for random in 0..64 {
        seen.insert(Asker { random, ..asker(&world, &known, netns(0)) }.connect(to));
    }
    assert_eq!(seen, [(Outcome::LEAVE, to), (Outcome::REPLACED, at(task(1, 1, true), 80))].into());
}

#[test]
fn a_vip_that_nobody_is_behind_is_refused_and_a_port_is_the_nodes() {
    let mut world = world(Service::default());
    world.services[0].tasks.clear();
    world.write();
    let known = Known::of(&world, 0);
    for netns in [IDLE, NODE] {
        assert_eq!(asker(&world, &known, netns).connect(at(vip(0, false), 80)).0, Outcome::REFUSE);
        assert_eq!(asker(&world, &known, netns).send(at(vip(0, true), 80)).0, Outcome::REFUSE);
        assert_eq!(asker(&world, &known, netns).connect(at(own(0, false), 8000)).0, Outcome::LEAVE);
    }
    assert_eq!(world.nodes[0].counted(Event::NoBackend), 4);
    // Whoever has no business there learns nothing.
    assert_eq!(asker(&world, &known, STRANGER).connect(at(vip(0, false), 80)).0, Outcome::LEAVE);
}

#[test]
fn datagrams_of_a_socket_stay_with_a_backend_while_it_serves() {
    let mut world = world(Service::default());
    let known = Known::of(&world, 0);
    let to = at(vip(0, false), 53);
    let send = |world: &World, cookie: u64| {
        let asker = Asker { proto: UDP, cookie, ..asker(world, &known, IDLE) };
        let (outcome, place) = asker.send(to);
        assert_eq!((outcome, asker.name(place)), (Outcome::REPLACED, (Outcome::REPLACED, to)));
        place
    };
    let first: Vec<_> = (0..200).map(|cookie| send(&world, cookie)).collect();
    let share = first.iter().filter(|place| **place == first[0]).count();
    assert!((60..140).contains(&share), "{share}");
    assert_eq!(world.nodes[0].counted(Event::NewFlow), 200);

    let index = usize::from(first[0].ip() != task(0, 0, false));
    world.tasks[index].state = BackendState::Draining;
    world.write();
    assert_eq!(send(&world, 0), first[0], "a flow stays");
    // One that forgot is a new one.
    world.pass(world.nodes[0].config.timeouts.of(UDP, 1, 0) + 1);
    assert_ne!(send(&world, 0), first[0]);
    let moved = send(&world, 0);
    world.tasks[index].state = BackendState::Active;
    world.tasks[1 - index].state = BackendState::Gone;
    world.tasks[1 - index].generation += 1;
    world.write();
    assert_ne!(send(&world, 0), moved);
    assert_eq!(world.nodes[0].counted(Event::NewFlow), 202);
    // Nor is a node waited for that does not answer.
    let before = send(&world, 0);
    world.tasks[index].state = BackendState::Silent;
    world.tasks[1 - index].state = BackendState::Active;
    world.write();
    assert_ne!(send(&world, 0), before);
}

/// One socket, one backend, two VIPs: answers could be told of one of them only.
#[test]
fn a_backend_of_two_services_stands_for_the_first() {
    let service = Service { tasks: vec![1], target: 80, ..Service::default() };
    let world = World::new(2, &[0, 1, 0], vec![service.clone(), service]);
    let known = Known::of(&world, 0);
    let asker = Asker { proto: UDP, ..asker(&world, &known, IDLE) };
    let [one, two] = [0, 1].map(|service| at(vip(service, false), 80));
    let (outcome, backend) = asker.send(one);
    assert_eq!(outcome, Outcome::REPLACED);
    assert_eq!(asker.send(two), (Outcome::LEAVE, two));
    assert_eq!(asker.send(one).1, backend);
    assert_eq!(asker.name(backend).1, one);
    // A socket that is connected has one peer.
    assert_eq!(asker.connect(two), (Outcome::REPLACED, backend));
    assert_eq!(asker.name(backend).1, two);
}

#[test]
fn those_who_watch_are_told_of_each_flow_once() {
    let mut world = world(Service::default());
    let known = Known::of(&world, 0);
    let to = at(vip(0, false), 80);
    let told = |world: &World, watched: u8, netns: u64| {
        let mut asker = Asker { proto: UDP, ..asker(world, &known, netns) };
        asker.cookie += netns;
        let _ = (asker.send(to), asker.send(to));
        let told = known.told.take();
        assert_eq!(told.len(), usize::from(watched), "{told:?}");
        told.first().copied()
    };
    assert_eq!(told(&world, 0, NODE), None);
    world.nodes[0].config.watched = 1;
    known.choices.borrow_mut().clear();
    for (netns, client) in [(NODE, inside(0, false)), (IDLE, task(0, 2, false))] {
        let record = told(&world, 1, netns).unwrap();
        assert_eq!(record.tuple, Tuple::new(client.into(), NetPort::ANY, to.ip().into(), NetPort::new(80)));
        assert!(record.backend != NO_BACKEND && record.proto == UDP && record.event == Event::NewFlow as u32);
    }
    world.services[0].tasks.clear();
    world.write();
    assert_eq!(asker(&world, &known, IDLE).connect(to).0, Outcome::REFUSE);
    let [record] = known.told.take()[..] else { panic!("not one") };
    assert_eq!((record.backend, record.event), (NO_BACKEND, Event::NoBackend as u32));
}
