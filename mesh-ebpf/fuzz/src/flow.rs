//! Flows that reach a task, and are answered.

use std::net::SocketAddr;

use libfuzzer_sys::arbitrary::{Error, Result, Unstructured};
use mesh_ebpf::abi::{Frontend, TCP, UDP};
use mesh_ebpf::packet::tcp::{ACK, SYN};
use mesh_ebpf::testing::between;

use crate::carry::End;
use crate::read::{ETH, Read, valid};
use crate::world::{self, SERVICES, Who, World};

/// A flow between a client and a task.
#[derive(Clone, Debug)]
pub struct Flow {
    pub client: Who,
    /// Where it hears answers.
    pub listener: Who,
    pub task: usize,
    pub proto: u8,
    /// A packet as the client sent it, and as the task saw it.
    pub sent: Vec<u8>,
    pub seen: Vec<u8>,
    /// An answer as the task sent it, and as the client saw it.
    pub answered: Vec<u8>,
    pub heard: Vec<u8>,
}

impl Flow {
    /// A client sends to a service, and is answered. An error: the tables are too small for this one beside the others.
    pub fn begin(world: &World, u: &mut Unstructured<'_>) -> Result<Self> {
        let (kind, port) = (u.int_in_range(0..=6)?, u.int_in_range(5000..=5002)?);
        let (service, v6, proto) = (u.choose_index(SERVICES.len())?, u.arbitrary()?, *u.choose(&[TCP, UDP])?);
        let (client, src, dst) = world::client(kind, port, service, v6);
        let sent = packet(proto, SYN, src, dst, b"question");
        let came = world.carry(client, &sent);
        if world.is_crowded() {
            return Err(Error::IncorrectFormat);
        }
        let (task, seen) = match came {
            Some(End::At(Who::Task(task), seen)) => (task, seen),
            other => panic!("{client:?} {src} -> {dst}: {other:?}"),
        };
        let listener = listens(client, task, service);
        let (from, to) = ends(&read(&seen));
        assert_eq!(to, SocketAddr::new(world::address(task, v6), world::TARGET));
        let answered = packet(proto, SYN | ACK, to, from, b"answer");
        let heard = match world.carry(Who::Task(task), &answered) {
            Some(End::At(who, heard)) if who == listener => heard,
            other => panic!("what {client:?} {src} -> {dst} is answered by task {task}: {other:?}"),
        };
        assert_eq!(ends(&read(&heard)), (dst, src));
        Ok(Self { client, listener, task, proto, sent, seen, answered, heard })
    }
}

/// Where answers to a client arrive: where they go straight, they leave by the task's node.
pub fn listens(client: Who, task: usize, service: usize) -> Who {
    match client {
        Who::Net(_) if SERVICES[service].0 & Frontend::DSR != 0 => Who::Net(world::home(task)),
        _ => client,
    }
}

/// A TCP segment or a datagram.
pub fn packet(proto: u8, flags: u8, src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    between(src, dst, proto, flags).with(payload).bytes()
}

/// What a whole frame says that is all right.
pub fn read(frame: &[u8]) -> Read {
    valid(&frame[ETH..]).unwrap_or_else(|wrong| panic!("{wrong}: {frame:02x?}"))
}

/// Who speaks to whom.
pub fn ends(read: &Read) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(read.src, read.ports.0), SocketAddr::new(read.dst, read.ports.1))
}
