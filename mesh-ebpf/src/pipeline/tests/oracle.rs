//! Anything that may happen, against a simple model of what must come of it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::life::{at, client};
use super::world::{End, Service, Who, World, inside, own, task, vip};
use crate::abi::{BackendState, Frontend, TCP, UDP};
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::verdict::Refusal;

#[derive(Clone, Debug)]
enum Op {
    /// A client sends; whoever gets it answers.
    Send {
        client: usize,
        port: u16,
        service: usize,
        v6: bool,
        proto: u8,
        flags: u8,
    },
    /// A task speaks first, in some flow that was known before.
    Answer {
        flow: usize,
    },
    /// A task's state changes.
    State {
        task: usize,
        state: BackendState,
    },
    Pass {
        ticks: u32,
    },
    /// A node forgets all.
    Lose {
        node: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let flags = prop_oneof![4 => Just(SYN), 8 => Just(ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
    let proto = prop_oneof![2 => Just(TCP), 1 => Just(UDP)];
    let send = (0..8_usize, 5000..5003_u16, 0..3_usize, any::<bool>(), proto, flags).prop_map(
        |(client, port, service, v6, proto, flags)| Op::Send { client, port, service, v6, proto, flags },
    );
    let state = prop_oneof![3 => Just(BackendState::Active), 1 => Just(BackendState::Draining), 1 => Just(BackendState::Silent), 1 => Just(BackendState::Gone)];
    prop_oneof![
        12 => send,
        4 => (0..100_usize).prop_map(|flow| Op::Answer { flow }),
        2 => (0..6_usize, state).prop_map(|(task, state)| Op::State { task, state }),
        3 => prop_oneof![Just(0_u32), Just(1), Just(25), Just(70), Just(1000)].prop_map(|ticks| Op::Pass { ticks }),
        1 => (0..3_usize).prop_map(|node| Op::Lose { node }),
    ]
}

type Key = (Who, u8, SocketAddr, SocketAddr);

/// What the model knows of a flow.
#[derive(Clone, Debug)]
struct Flow {
    key: Key,
    service: usize,
    task: usize,
    generation: u32,
    /// What the task saw.
    seen: (SocketAddr, SocketAddr),
    last: u32,
    closing: bool,
    /// Its entry node forgot it; any node on its way did.
    forgotten: bool,
    half: bool,
    /// Another has its tuple now.
    stolen: bool,
    /// How often the service had changed when the task was chosen.
    version: u32,
}

struct Model {
    world: World,
    flows: Vec<Flow>,
    by_key: HashMap<Key, usize>,
    now: u32,
    versions: [u32; 3],
}

/// Who sends from where to what.
fn ends(kind: usize, port: u16, service: usize, v6: bool) -> (Who, SocketAddr, SocketAddr) {
    let published = |ip: IpAddr| at(ip, 8000 + service as u16);
    let local: IpAddr = if v6 { "::1" } else { "127.0.0.1" }.parse().unwrap();
    match kind {
        // One client by two nodes, with the same ports.
        0 | 1 => (Who::Net { node: kind, device: 2 }, client(v6, port), published(own(kind, v6))),
        2 => (Who::Task(6), at(task(0, 6, v6), port), at(vip(service, v6), 80)),
        // With ports of its own: two nodes that translate for one task do not know of each other.
        3 => (Who::Task(6), at(task(0, 6, v6), port + 100), published(own(0, v6))),
        // One of the backends.
        4 => (Who::Task(0), at(task(0, 0, v6), port), at(vip(service, v6), 80)),
        5 => (Who::Stack(1), at(local, port), published(local)),
        6 => (Who::Stack(1), at(own(1, v6), port), published(own(1, v6))),
        _ => (Who::Stack(2), at(inside(2, v6), port), at(vip(service, v6), 80)),
    }
}

impl Model {
    fn new() -> Self {
        let service = |tasks: &[usize]| Service { tasks: tasks.to_vec(), target: 80, ..Service::default() };
        let services = vec![
            service(&[0, 1, 2, 3]),
            Service { flags: Frontend::HASHED, ..service(&[2, 3, 4, 5]) },
            Service { affinity: 100, ..service(&[0, 4, 5]) },
        ];
        let world = World::new(3, &[0, 1, 2, 0, 1, 2, 0], services);
        Self { world, flows: Vec::new(), by_key: HashMap::new(), now: 0, versions: [0; 3] }
    }

    fn is_gone(&self, flow: &Flow) -> bool {
        let task = &self.world.tasks[flow.task];
        task.state == BackendState::Gone || task.generation != flow.generation
    }

    fn is_silent(&self, flow: &Flow) -> bool {
        self.world.tasks[flow.task].state == BackendState::Silent
    }

    /// Those that new flows may go to.
    fn active(&self, service: usize) -> Vec<usize> {
        let is_active = |task: &usize| self.world.tasks[*task].state == BackendState::Active;
        self.world.services[service].tasks.iter().copied().filter(is_active).collect()
    }

    /// What may become of a packet: the tasks that it may go to, or its end.
    fn may(&self, key: Key, service: usize, flags: u8) -> Result<Vec<usize>, End> {
        let (_, proto, _, dst) = key;
        let active = self.active(service);
        let begins = if active.is_empty() {
            Err(if dst.port() == 80 { End::Refused(Refusal::Closed) } else { End::Passed })
        } else {
            Ok(active.clone())
        };
        let Some(flow) = self.by_key.get(&key).map(|index| &self.flows[*index]) else { return begins };
        let age = self.now - flow.last;
        if flow.forgotten {
            let alike = flow.version == self.versions[service] && service != 2;
            return if alike && begins.is_ok() && active.contains(&flow.task) {
                Ok(vec![flow.task])
            } else {
                begins
            };
        }
        match (proto, flags) {
            (TCP, SYN) if self.is_gone(flow) || !active.contains(&flow.task) => begins,
            (TCP, SYN) if flow.closing || age > 30 => begins,
            (TCP, SYN) => Ok(vec![flow.task]),
            (TCP, _) if self.is_gone(flow) => Err(End::Refused(Refusal::Closed)),
            (TCP, _) => Ok(vec![flow.task]),
            _ if self.is_gone(flow) || self.is_silent(flow) || age > 180 => begins,
            _ if age <= 30 => Ok(vec![flow.task]),
            _ => begins.or(Ok(Vec::new())).map(|active| [active, vec![flow.task]].concat()),
        }
    }

    fn send(&mut self, key: Key, service: usize, flags: u8) {
        let (who, proto, src, dst) = key;
        if matches!(who, Who::Task(task) if self.world.tasks[task].state == BackendState::Gone) {
            return;
        }
        let may = self.may(key, service, flags);
        let end = self.world.send(who, proto, flags, src, dst);
        let known = self.by_key.get(&key).copied();
        let (tasks, to, seen) = match (may, end) {
            (Ok(tasks), End::At(Who::Task(to), seen, own)) => (tasks, to, (seen, own)),
            // A flow of datagrams that was half forgotten, when nobody is left.
            (Ok(tasks), End::Refused(_) | End::Passed) if tasks.len() == 1 && proto == UDP => return,
            (Err(wanted), end) if wanted == end => return,
            (may, end) => {
                panic!("{key:?} {flags:x}: {end:?}, not {may:?}; {:?}", known.map(|i| &self.flows[i]))
            }
        };
        assert!(tasks.contains(&to), "{key:?} {flags:x} went to {to}, not {tasks:?}");
        let port = if dst.port() == 80 { 80 } else { self.world.services[service].target };
        assert_eq!(seen.1, at(task(self.world.tasks[to].node, to, src.is_ipv6()), port));
        let mut flow = Flow {
            key,
            service,
            task: to,
            generation: self.world.tasks[to].generation,
            seen,
            last: self.now,
            closing: false,
            forgotten: false,
            half: false,
            stolen: false,
            version: self.versions[service],
        };
        if let Some(old) = known.map(|index| &self.flows[index]) {
            let again = flags == SYN && proto == TCP && old.closing;
            let same = old.task == to && !again && !old.forgotten;
            if same {
                flow.version = old.version;
                flow.closing = old.closing;
                flow.stolen = old.stolen;
            }
            let fresh = !old.half && !old.stolen && self.now - old.last <= 30 && !self.is_gone(old);
            // A SYN is the beginning of another connection, should the task see it from elsewhere.
            if same && fresh && (proto, flags) != (TCP, SYN) {
                assert_eq!(old.seen, seen, "a flow looks the same for as long as it lives");
            }
        }
        flow.closing |= proto == TCP && flags & (FIN | RST) != 0;
        self.own(&flow);
        let stolen = flow.stolen;
        match known {
            Some(index) => self.flows[index] = flow,
            None => {
                self.by_key.insert(key, self.flows.len());
                self.flows.push(flow);
            }
        }
        if !stolen {
            let flags = if flags == SYN { SYN | ACK } else { ACK };
            self.world.answer(to, proto, flags, seen, (who, src, dst));
        }
    }

    /// No two flows that live look the same to a task.
    fn own(&mut self, flow: &Flow) {
        let now = self.now;
        for other in &mut self.flows {
            let meets = other.key != flow.key && other.key.1 == flow.key.1 && other.seen == flow.seen;
            if meets && !flow.stolen && !other.stolen {
                assert!(other.half || now - other.last > 30, "{flow:?} has the place of {other:?}");
                other.stolen = true;
            }
        }
    }

    fn answer(&mut self, index: usize) {
        if self.flows.is_empty() {
            return;
        }
        let index = index % self.flows.len();
        let flow = self.flows[index].clone();
        let (who, proto, src, dst) = flow.key;
        let client_gone =
            matches!(who, Who::Task(task) if self.world.tasks[task].state == BackendState::Gone);
        let task_gone = self.world.tasks[flow.task].state == BackendState::Gone;
        if flow.half || flow.forgotten || flow.stolen || client_gone || task_gone || self.now - flow.last > 30
        {
            return;
        }
        self.world.answer(flow.task, proto, ACK, flow.seen, (who, src, dst));
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Send { client, port, service, v6, proto, flags } => {
                let (who, src, dst) = ends(client, port, service, v6);
                self.send((who, proto, src, dst), service, if proto == TCP { flags } else { 0 });
            }
            Op::Answer { flow } => self.answer(flow),
            Op::State { task, state } => {
                let changed = &mut self.world.tasks[task];
                if state == BackendState::Gone && changed.state != BackendState::Gone {
                    changed.generation += 1;
                }
                changed.state = state;
                self.versions.iter_mut().for_each(|version| *version += 1);
                self.world.write();
            }
            Op::Pass { ticks } => {
                self.now += ticks;
                self.world.pass(ticks);
            }
            Op::Lose { node } => {
                self.world.nodes[node].lose_flows();
                for flow in &mut self.flows {
                    let entry = match flow.key.0 {
                        Who::Net { node, .. } | Who::Stack(node) => node,
                        Who::Task(task) => self.world.tasks[task].node,
                    };
                    flow.forgotten |= entry == node;
                    flow.half |= entry == node || self.world.tasks[flow.task].node == node;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_flow_is_served_as_it_must_be(ops in proptest::collection::vec(op(), 1..120)) {
        let mut model = Model::new();
        for op in &ops {
            model.apply(op);
        }
        prop_assert!(model.flows.iter().all(|flow| flow.service < 3));
    }
}
