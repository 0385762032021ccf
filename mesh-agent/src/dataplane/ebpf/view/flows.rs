//! **Decision.** What a table of flows says. Pure.

use std::net::IpAddr;
use std::time::Duration;

use mesh_core::model::Vni;
use mesh_ebpf::abi::{Addr16, NetPort, Timeouts};
use mesh_ebpf::flow::{Client, Flow, Head, Place, Role, TICK};

/// How full a table is. A flow takes one entry on the way to its task, and one on the way back at the node that
/// translates it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Entries that count.
    pub live: u64,
    /// Of those, established ones: they are never given up for others.
    pub established: u64,
    /// Entries that there is room for.
    pub slots: u64,
}

impl Occupancy {
    pub(super) fn of(
        flows: impl Iterator<Item = Flow>,
        slots: u64,
        proto: u8,
        now: u32,
        timeouts: &Timeouts,
    ) -> Self {
        let mut sum = Self { slots, ..Self::default() };
        for flow in flows {
            let head = Head(flow.head);
            let live = head.role().is_some() && head.age(now) <= head.timeout(proto, timeouts);
            let established = live && head.has(Head::ESTABLISHED) && !head.has(Head::CLOSING);
            sum.live += u64::from(live);
            sum.established += u64::from(established);
        }
        sum
    }
}

/// Whose flows are asked for, and to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// TCP or UDP, by its number.
    pub proto: u8,
    /// Who sends.
    pub client: IpAddr,
    /// From which port; none: from any.
    pub client_port: Option<u16>,
    /// To whom.
    pub destination: IpAddr,
    /// To which port.
    pub port: u16,
}

/// How far a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Only its beginning was heard.
    Opening,
    /// More was.
    Established,
    /// One side has ended.
    Closing,
}

/// A flow that a node remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// From which port.
    pub client_port: u16,
    /// The port that its task sees instead, where it is another.
    pub changed_port: Option<u16>,
    /// The network and the address of its task; none: the task has gone.
    pub task: Option<(Vni, IpAddr)>,
    /// The task's port.
    pub port: u16,
    /// How far it is.
    pub state: State,
    /// For how long nothing was heard of it.
    pub idle: Duration,
    /// Whether this node translates it. Otherwise it is tunnelled as the client sends it.
    pub here: bool,
    /// The underlay address of the node that it came in by, if that is another; of one whose answers go straight to the
    /// client the address that the client sent to.
    pub entered: Option<IpAddr>,
    /// Whether answers go straight from the task's node to the client.
    pub direct: bool,
    /// Whether its socket was led to the task as it connected: no packet of it is translated.
    pub at_socket: bool,
}

/// What an entry says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Read {
    /// Without names.
    pub(super) live: Live,
    pub(super) task: Task,
}

/// How an entry names the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// By the number of its backend.
    Backend { id: u32, generation: u32 },
    /// By its address; the client came in by the node with that number. None: by one that expects no answers.
    At(Addr16, Option<u32>),
}

impl Asked {
    /// What an entry says, if it is of such a flow. Of a flow within the node only the way to the task is looked at,
    /// for the way back says nothing more.
    pub(super) fn read(&self, flow: &Flow, now: u32, timeouts: &Timeouts) -> Option<Read> {
        let head = Head(flow.head);
        // Of no role: it is empty, or was forgotten.
        if head.role().is_none() || head.age(now) > head.timeout(self.proto, timeouts) {
            return None;
        }
        let (client, destination) = (Addr16::from(self.client), Addr16::from(self.destination));
        let tuple = &flow.tuple;
        let (own, changed, port, task) = if head.is(Role::Forward) {
            if (tuple.src, tuple.dst, tuple.dport().number()) != (client, destination, self.port) {
                return None;
            }
            let [id, generation, ..] = flow.addr.0;
            (tuple.sport(), flow.client_port, flow.port, Task::Backend { id, generation })
        } else {
            let entered = match head.client() {
                Client { place: Place::Peer, via } => Some(via),
                // By whichever device leads to the client: only where another node does not want the answers.
                Client { place: Place::Uplink, via: 0 } => None,
                _ => return None,
            };
            if (tuple.dst, flow.addr, flow.port.number()) != (client, destination, self.port) {
                return None;
            }
            let changed = if flow.client_port == NetPort::ANY { NetPort::ANY } else { tuple.dport() };
            (flow.client_port.or(tuple.dport()), changed, tuple.sport(), Task::At(tuple.src, entered))
        };
        if self.client_port.is_some_and(|asked| asked != own.number()) {
            return None;
        }
        let state = if head.has(Head::CLOSING) {
            State::Closing
        } else if head.has(Head::ESTABLISHED) {
            State::Established
        } else {
            State::Opening
        };
        let live = Live {
            client_port: own.number(),
            changed_port: (changed != NetPort::ANY).then(|| changed.number()),
            task: None,
            port: port.number(),
            state,
            idle: Duration::from_nanos(u64::from(head.age(now)) << TICK),
            here: head.has(Head::HERE),
            entered: None,
            direct: match task {
                Task::Backend { .. } => head.has(Head::DIRECT),
                Task::At(_, entered) => entered.is_none(),
            },
            at_socket: false,
        };
        Some(Read { live, task })
    }
}

#[cfg(test)]
mod tests {
    use mesh_ebpf::abi::TCP;
    use mesh_ebpf::packet::Tuple;

    use super::*;

    #[test]
    fn what_has_expired_does_not_count() {
        let client = Client { place: Place::Uplink, via: 0 };
        let head = |marks, now| Flow { head: Head::new(Role::Forward, client, marks, now).0, ..Flow::EMPTY };
        let bucket = [
            head(Head::ESTABLISHED, 100),
            head(0, 100),
            head(Head::ESTABLISHED | Head::CLOSING, 100),
            Flow::EMPTY,
        ];
        let at = |now| {
            let of = Occupancy::of(bucket.into_iter(), 8, TCP, now, &Timeouts::DEFAULT);
            assert_eq!(of.slots, 8);
            (of.live, of.established)
        };
        assert_eq!(at(100), (3, 1));
        assert_eq!(at(100 + 61), (1, 1));
        assert_eq!(at(100 + 6 * 3600 + 1), (0, 0));
    }

    fn addr(text: &str) -> Addr16 {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn entries_are_read_as_flows() {
        let asked = Asked {
            proto: TCP,
            client: "198.51.100.1".parse().unwrap(),
            client_port: None,
            destination: "192.0.2.1".parse().unwrap(),
            port: 8080,
        };
        let new = NetPort::new;
        let client = Client { place: Place::Uplink, via: 3 };
        let forward = Flow {
            tuple: Tuple::new(addr("198.51.100.1"), new(4000), addr("192.0.2.1"), new(8080)),
            port: new(80),
            client_port: new(40_000),
            head: Head::new(Role::Forward, client, Head::HERE, 100).used(100, Head::ESTABLISHED).0,
            addr: Flow::target(7, 2, 1),
        };
        let read = |asked: Asked, flow| asked.read(&flow, 103, &Timeouts::DEFAULT);
        let found = read(asked, forward).unwrap();
        assert_eq!(found.task, Task::Backend { id: 7, generation: 2 });
        let Live { client_port, changed_port, port, state, here, idle, .. } = found.live;
        assert_eq!((client_port, changed_port, port), (4000, Some(40_000), 80));
        assert_eq!((state, here, idle.as_secs()), (State::Established, true, 3));
        assert_eq!(read(Asked { client_port: Some(4000), ..asked }, forward), Some(found));
        for other in [
            Asked { client_port: Some(4001), ..asked },
            Asked { port: 80, ..asked },
            Asked { client: asked.destination, ..asked },
        ] {
            assert_eq!(read(other, forward), None);
        }
        // What another node sent here says where it came in, and its own port beside the changed one.
        let peer = Client { place: Place::Peer, via: 9 };
        let reply = |client| Flow {
            tuple: Tuple::new(addr("10.0.16.2"), new(80), addr("198.51.100.1"), new(40_000)),
            port: new(8080),
            client_port: new(4000),
            head: Head::new(Role::Reply, client, Head::HERE, 100).0,
            addr: addr("192.0.2.1"),
        };
        let found = read(asked, reply(peer)).unwrap();
        assert_eq!((found.task, found.live.direct), (Task::At(addr("10.0.16.2"), Some(9)), false));
        assert_eq!((found.live.client_port, found.live.changed_port), (4000, Some(40_000)));
        assert_eq!((found.live.port, found.live.state), (80, State::Opening));
        assert_eq!(read(asked, reply(client)), None);
        // One that does not want the answers is not named.
        let found = read(asked, reply(Client { place: Place::Uplink, via: 0 })).unwrap();
        assert_eq!((found.task, found.live.direct), (Task::At(addr("10.0.16.2"), None), true));
    }
}
