//! Histories of flows, tasks, and tables that may be full: who has a place stays with its task, whatever others do, and
//! while no task changes everybody does.

#![no_main]

use std::collections::HashMap;
use std::net::SocketAddr;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mesh_ebpf::abi::{Addr16, BackendState, Frontend, NetPort, TCP, UDP};
use mesh_ebpf::flow::{Found, Head, Role};
use mesh_ebpf::hash;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::Tuple;
use mesh_ebpf::packet::tcp::{ACK, FIN, RST, SYN};
use mesh_ebpf::testing::Node;
use mesh_ebpf_fuzz::flow::{ends, listens, packet, read};
use mesh_ebpf_fuzz::world::{self, MEMBER, NODES, SERVICES};
use mesh_ebpf_fuzz::{End, Who, World};

/// The longest history, and the beginnings of a flood.
const EVENTS: usize = 256;
const FLOOD: u16 = 32;

/// A flow, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: Who,
    proto: u8,
    service: usize,
    src: SocketAddr,
    dst: SocketAddr,
}

/// What came of its last packet.
#[derive(Clone, Copy, Debug)]
struct Flow {
    key: Key,
    task: usize,
    /// The client's end as the task sees it, and the task's own.
    seen: (SocketAddr, SocketAddr),
    /// Until when it has places that are nobody else's.
    kept: Option<u32>,
    /// How often tasks had changed when it was first seen.
    changes: u32,
}

struct History {
    world: World,
    flows: Vec<Flow>,
    known: HashMap<Key, usize>,
    now: u32,
    /// How often tasks changed.
    changes: u32,
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are no more there: it is over.
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(u: &mut Unstructured<'_>) -> Result<()> {
    let world = World::new(*u.choose(&[1, 2, 8, 64])?);
    let mut history = History { world, flows: Vec::new(), known: HashMap::new(), now: 0, changes: 0 };
    for _ in 0..EVENTS {
        if u.is_empty() {
            break;
        }
        history.go_on(u)?;
    }
    for node in &history.world.nodes {
        assert!(node.active.borrow().values().all(|flows| *flows >= 0), "fewer flows than none");
    }
    Ok(())
}

impl History {
    fn go_on(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=15)? {
            0..=3 => {
                let (service, v6, proto) =
                    (u.choose_index(SERVICES.len())?, u.arbitrary()?, *u.choose(&[TCP, UDP])?);
                let (kind, port) = (u.int_in_range(0..=6)?, u.int_in_range(5000..=5002)?);
                let (client, src, dst) = world::client(kind, port, service, v6);
                self.send(Key { client, proto, service, src, dst }, *u.choose(&[SYN, ACK])?);
            }
            4..=8 if !self.flows.is_empty() => {
                let key = u.choose(&self.flows)?.key;
                self.send(key, *u.choose(&[ACK, ACK, ACK, ACK, SYN, FIN | ACK, RST])?);
            }
            9..=11 if !self.flows.is_empty() => {
                let index = u.choose_index(self.flows.len())?;
                self.answer(index, *u.choose(&[ACK, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST])?);
            }
            12 => self.flood(u.int_in_range(0..=3)?, u.arbitrary()?, u.arbitrary()?),
            13 => {
                let states = [BackendState::Active, BackendState::Draining, BackendState::Gone];
                self.tell(u.choose_index(NODES)?, u.choose_index(MEMBER)?, *u.choose(&states)?);
            }
            14 => {
                let ticks = *u.choose(&[1, 8, 25, 70, 1000])?;
                self.now += ticks;
                self.world.pass(ticks);
            }
            15 => {
                self.world.nodes[u.choose_index(NODES)?].lose_flows();
                self.flows.iter_mut().for_each(|flow| flow.kept = None);
            }
            _ => {}
        }
        Ok(())
    }

    /// A client sends, and whoever is to have it gets it; or somebody has counted why not.
    fn send(&mut self, key: Key, flags: u8) {
        let flags = if key.proto == TCP { flags } else { 0 };
        let before = self.world.counted();
        let index = self.known.get(&key).copied();
        let kept = index.map(|index| &self.flows[index]).filter(|flow| flow.is_kept(self.now));
        if self.is_away(key.client) {
            return;
        }
        let end = self.world.carry(key.client, &packet(key.proto, flags, key.src, key.dst, b"question"));
        let Some(End::At(Who::Task(task), frame)) = end else {
            assert!(kept.is_none() || flags == SYN, "{end:?} is no end for {kept:?}");
            let told = matches!(end, Some(End::Dropped(_) | End::Late)) || self.world.counted() > before;
            assert!(told, "{end:?} of {key:?}, and nobody knows why");
            return;
        };
        let seen = ends(&read(&frame));
        assert_eq!(seen.1, SocketAddr::new(world::address(task, key.src.is_ipv6()), world::TARGET));
        assert!(!self.is_away(Who::Task(task)), "a task that has gone");
        if let Some(kept) = kept.filter(|_| flags != SYN) {
            assert_eq!((task, seen), (kept.task, kept.seen), "{kept:?} has moved");
        }
        let index = index.unwrap_or(self.flows.len());
        if index == self.flows.len() {
            self.known.insert(key, index);
            self.flows.push(Flow { key, task, seen, kept: None, changes: self.changes });
        }
        let old = &self.flows[index];
        let hashed = matches!(SERVICES[key.service], (flags, 0) if flags & Frontend::LEAST == 0);
        assert!(!hashed || old.changes != self.changes || old.task == task, "{old:?} is now with {task}");
        self.flows[index] = Flow { key, task, seen, ..self.flows[index] };
        self.look(index, flags);
    }

    /// A task answers; to whom has a place the answer comes.
    fn answer(&mut self, index: usize, flags: u8) {
        let Flow { key, task, seen, .. } = self.flows[index];
        if self.is_away(Who::Task(task)) {
            return;
        }
        let flags = if key.proto == TCP { flags } else { 0 };
        let kept = self.flows[index].is_kept(self.now);
        let end = self.world.carry(Who::Task(task), &packet(key.proto, flags, seen.1, seen.0, b"answer"));
        match end {
            Some(End::At(who, frame)) => {
                let heard = ends(&read(&frame));
                let right = who == listens(key.client, task, key.service) && heard == (key.dst, key.src);
                assert!(right || !kept, "{who:?} hears {heard:?} of {:?}", self.flows[index]);
            }
            end => assert!(!kept, "{end:?} is no end for the answer of {:?}", self.flows[index]),
        }
        self.look(index, flags);
    }

    /// Whether a flow has its places from now on, after a packet with these flags.
    fn look(&mut self, index: usize, flags: u8) {
        let flow = &self.flows[index];
        let ends = flow.key.proto == TCP && flags & (FIN | RST) != 0;
        // Six hours, three minutes; and so much longer than its last use as that may be noted late.
        let timeout = if flow.key.proto == TCP { 6 * 3600 } else { 180 } - 16;
        let kept = !ends && !self.is_away(flow.key.client) && has_places(&self.world, flow);
        self.flows[index].kept = kept.then_some(self.now + timeout);
    }

    /// Many begin flows with a service and never go on.
    fn flood(&mut self, service: usize, v6: bool, from: u8) {
        let (client, src, dst) = world::client(0, 0, service, v6);
        for port in 0..FLOOD {
            let src = SocketAddr::new(src.ip(), 10_000 + u16::from(from) * FLOOD + port);
            self.world.carry(client, &packet(TCP, SYN, src, dst, b""));
        }
    }

    fn tell(&mut self, at: usize, task: usize, state: BackendState) {
        self.world.tell(at, task, state);
        self.changes += 1;
        if state == BackendState::Gone {
            let of = |flow: &&mut Flow| flow.task == task || flow.key.client == Who::Task(task);
            self.flows.iter_mut().filter(of).for_each(|flow| flow.kept = None);
        }
    }

    /// Of a task: its own node knows that it has gone.
    fn is_away(&self, who: Who) -> bool {
        let Who::Task(task) = who else { return false };
        self.world.known(world::home(task), task, false).state == BackendState::Gone as u8
    }
}

impl Flow {
    fn is_kept(&self, now: u32) -> bool {
        self.kept.is_some_and(|until| now < until)
    }
}

/// Whether all entries of a flow are there, and are of those that do not give way.
fn has_places(world: &World, flow: &Flow) -> bool {
    let Key { client, proto, src, dst, .. } = flow.key;
    let entry = match client {
        Who::Net(node) | Who::Stack(node) => node,
        Who::Task(task) => world::home(task),
    };
    let stays = |found: &Found<'_>| found.head.has(Head::ESTABLISHED) && !found.head.has(Head::CLOSING);
    let find = |at: usize, tuple: &Tuple, role| find(&world.nodes[at], proto, tuple, role).filter(stays);
    let Some(forward) = find(entry, &tuple(src, dst), Role::Forward) else { return false };
    let Some((_, _, Addr16([_, generation, ..]))) = forward.read() else { return false };
    if !world.known(entry, flow.task, src.is_ipv6()).serves(generation) {
        return false;
    }
    let at = if forward.head.has(Head::HERE) { entry } else { world::home(flow.task) };
    let answers = tuple(flow.seen.1, flow.seen.0);
    let Some((port, client_port, addr)) = find(at, &answers, Role::Reply).and_then(|found| found.read())
    else {
        return false;
    };
    // Another's may look the same.
    let own = (addr, port) == (dst.ip().into(), NetPort::new(dst.port()))
        && client_port.or(answers.dport()).number() == src.port();
    let origin = find(at, &answers, Role::Origin).and_then(|found| found.read());
    own && (!forward.head.has(Head::SNAT) || origin.is_some_and(|(_, _, addr)| addr == src.ip().into()))
}

fn find<'n>(node: &'n Node, proto: u8, tuple: &Tuple, role: Role) -> Option<Found<'n>> {
    node.bucket(proto, hash::place(tuple, node.config.table_seed))?.find(tuple, role)
}

fn tuple(src: SocketAddr, dst: SocketAddr) -> Tuple {
    Tuple::new(src.ip().into(), NetPort::new(src.port()), dst.ip().into(), NetPort::new(dst.port()))
}
