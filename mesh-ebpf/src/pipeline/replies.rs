//! From the backend to the client, and what is remembered for it.

use crate::abi::{Addr16, Mac, NetPort, TCP};
use crate::flow::{Client, Flow, Head, Inserted, Place, Role, states};
use crate::hash;
use crate::kernel::Kernel;
use crate::packet::{Packet, Tuple, tcp};
use crate::tunnel::Tag;
use crate::verdict::{Event, Refusal, To, Verdict};

/// Source ports that are tried for a flow before it is given up.
const TRIES: u32 = 4;

/// A packet that may be a backend's answer: translated back and on its way to the client; `None` if it is none.
#[inline(always)]
pub(super) fn answer<K: Kernel>(k: &K, packet: &Packet) -> Option<Verdict> {
    let (tuple, config, now) = (&packet.tuple, k.config(), k.now());
    let bucket = k.bucket(packet.proto, hash::place(tuple, config.table_seed))?;
    let found = bucket.find(tuple, Role::Reply)?;
    let (port, client_port, addr) = found.read()?;
    found.touch(now, states(packet));
    let dst = if found.head.has(Head::SELF) {
        tuple.src
    } else if found.head.has(Head::LOOPBACK) {
        loopback(&tuple.dst)
    } else {
        tuple.dst
    };
    let outer = Tuple::new(addr, port, dst, client_port.or(tuple.dport()));
    if packet.proto == TCP && packet.flags & (tcp::FIN | tcp::RST) != 0 {
        // The client's side may never say that it has ended.
        let forward = outer.reversed();
        if let Some(other) = k
            .bucket(packet.proto, hash::place(&forward, config.table_seed))
            .and_then(|bucket| bucket.find(&forward, Role::Forward))
        {
            other.touch(now, Head::CLOSING);
        }
    }
    Some(deliver(k, outer, found.head.client()))
}

/// A packet for a published port that another node balanced to a task of this one.
#[inline(always)]
pub(super) fn arrive<K: Kernel>(k: &K, packet: &Packet, peer: u32, port: NetPort, mac: Mac) -> Verdict {
    let tuple = &packet.tuple;
    let Some(task) = k.endpoint_of(mac) else {
        k.count(Event::BackendGone);
        return Verdict::Refuse(Refusal::Closed);
    };
    let client = Client { place: Place::Peer, via: peer };
    let mut inner = Tuple::new(tuple.src, tuple.sport(), task.beside(&tuple.dst), port);
    let Some(changed) = remember(k, packet, &inner, client, Head::HERE, k.now()) else {
        return Verdict::Drop(Event::PortsExhausted);
    };
    if changed != NetPort::ANY {
        inner = Tuple::new(inner.src, changed, inner.dst, port);
    }
    Verdict::Send(inner, To::Task { device: task.device, mac })
}

/// An answer that the task's node has translated back, at the node that the client came in by.
#[inline(always)]
pub(super) fn back<K: Kernel>(k: &K, packet: &Packet) -> Verdict {
    let forward = packet.tuple.reversed();
    let found = k
        .bucket(packet.proto, hash::place(&forward, k.config().table_seed))
        .and_then(|bucket| bucket.find(&forward, Role::Forward));
    if let Some(found) = found {
        found.touch(k.now(), states(packet) & Head::CLOSING);
        return deliver(k, packet.tuple, found.head.client());
    }
    // Forgotten, but it can only have left here for one of the node's own addresses.
    if k.is_local(&packet.tuple.src) {
        return Verdict::Send(packet.tuple, To::Uplink { device: 0 });
    }
    Verdict::Drop(Event::NoRoute)
}

/// Remembers how to translate the answers to `inner`, which is what the backend will see of `packet`. What the
/// client's port must be instead, or [`NetPort::ANY`] if it may stay; `None`: no port is free.
///
/// Two flows can meet in one tuple: a client may use one port towards two nodes, and both may choose one task.
#[inline(always)]
pub(super) fn remember<K: Kernel>(
    k: &K,
    packet: &Packet,
    inner: &Tuple,
    client: Client,
    marks: u64,
    now: u32,
) -> Option<NetPort> {
    let wanted = Wanted { packet, inner, head: Head::new(Role::Reply, client, marks, now), now };
    match wanted.place(k, NetPort::ANY, true) {
        Outcome::Done => return Some(NetPort::ANY),
        Outcome::Taken => {}
    }
    // Known with another port, or else the first that is free.
    let mut round = 0;
    while round < 2 * TRIES {
        let port = other_port(&packet.tuple, round % TRIES);
        if wanted.place(k, port, round >= TRIES) == Outcome::Done {
            if round >= TRIES {
                k.count(Event::PortChanged);
            }
            return Some(port);
        }
        round += 1;
    }
    None
}

/// A reply flow that is to be remembered.
struct Wanted<'a> {
    packet: &'a Packet,
    inner: &'a Tuple,
    head: Head,
    now: u32,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    Taken,
}

impl Wanted<'_> {
    /// With this client's port ([`NetPort::ANY`]: its own): known, or made if it may be.
    #[inline(always)]
    fn place<K: Kernel>(&self, k: &K, port: NetPort, may_insert: bool) -> Outcome {
        let Tuple { src, dst, .. } = *self.inner;
        let tuple = Tuple::new(dst, self.inner.dport(), src, port.or(self.inner.sport()));
        let config = k.config();
        let Some(bucket) = k.bucket(self.packet.proto, hash::place(&tuple, config.table_seed)) else {
            return Outcome::Taken;
        };
        let flow = Flow {
            tuple,
            port: self.packet.tuple.dport(),
            client_port: if port == NetPort::ANY { NetPort::ANY } else { self.packet.tuple.sport() },
            head: self.head.0,
            addr: self.packet.tuple.dst,
        };
        let Some(found) = bucket.find(&tuple, Role::Reply) else {
            if !may_insert {
                return Outcome::Taken;
            }
            return match bucket.insert(&flow, self.packet.proto, self.now, &config.timeouts) {
                Inserted::Placed => Outcome::Done,
                Inserted::Evicted => {
                    k.count(Event::Evicted);
                    Outcome::Done
                }
                // Another port is another bucket.
                Inserted::Full => {
                    k.count(Event::TableFull);
                    Outcome::Taken
                }
            };
        };
        let same = found.head.is_like(self.head)
            && found.read() == Some((flow.port, flow.client_port, flow.addr));
        if same {
            found.touch(self.now, 0);
            return Outcome::Done;
        }
        let over = found.head.has(Head::CLOSING)
            || found.head.age(self.now) > found.head.timeout(self.packet.proto, &config.timeouts);
        // A segment in the middle of a flow takes nobody's place: its own may be elsewhere.
        let begins = self.packet.proto != TCP || self.packet.is_syn();
        if over && may_insert && begins && found.replace(&flow) { Outcome::Done } else { Outcome::Taken }
    }
}

/// One of the ports that a flow may get instead of its client's: 32768 to 65535.
#[inline(always)]
const fn other_port(tuple: &Tuple, round: u32) -> NetPort {
    let hash = hash::place(tuple, 0x706f_7274 + round as u64);
    NetPort::new(0x8000 | hash as u16)
}

/// Where a client is.
#[inline(always)]
fn deliver<K: Kernel>(k: &K, tuple: Tuple, client: Client) -> Verdict {
    let to = match client.place {
        Place::Task => match k.endpoint(client.via) {
            Some(task) => To::Task { device: client.via, mac: task.mac },
            None => return Verdict::Drop(Event::NoRoute),
        },
        Place::Uplink => To::Uplink { device: client.via },
        Place::Stack => To::Stack,
        Place::Peer => match k.peer(client.via) {
            Some(peer) => To::Peer { peer: client.via, tag: Tag::Reply, mac: peer.mac },
            None => return Verdict::Drop(Event::NoRoute),
        },
    };
    Verdict::Send(tuple, to)
}

#[inline(always)]
const fn loopback(like: &Addr16) -> Addr16 {
    if like.is_v4() {
        Addr16::from_word(u32::from_ne_bytes([127, 0, 0, 1]))
    } else {
        Addr16([0, 0, 0, 1_u32.to_be()])
    }
}
