//! From the backend to the client, and what is remembered for it.

use super::balance::hear;
use super::{Seen, count, may_come};
use crate::abi::{Addr16, Mac, NetPort, TCP};
use crate::flow::{Client, Flow, Head, Inserted, Place, Role, Shared, states};
use crate::hash;
use crate::kernel::Kernel;
use crate::packet::{Packet, Tuple};
use crate::tunnel::{Tag, Terms};
use crate::verdict::{Event, Hop, Refusal, Verdict};

/// Source ports that are tried for a flow before it is given up.
pub(super) const TRIES: u32 = 4;

/// A packet that may be a backend's answer: translated back and on its way to the client; `PASS` if it is none.
#[inline(always)]
pub fn answer<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    let (config, now) = (k.config(), k.now());
    let Some(bucket) = k.bucket(packet.proto, hash::place(&packet.tuple, config.table_seed)) else {
        return Verdict::PASS;
    };
    let Some(found) = bucket.find(&packet.tuple, Role::Reply) else {
        return if may_come(config, packet) { Verdict::drop(Event::Moving) } else { Verdict::PASS };
    };
    let Some((port, client_port, addr)) = found.read() else { return Verdict::PASS };
    packet.now = now;
    // What is taken up, or refused, now that the flow is over did not begin by it: its client went straight to the
    // backend, by the port that it had towards the VIP before.
    if (packet.takes_up() || packet.turns_down()) && found.head.is_over(packet.proto, now, &config.timeouts) {
        found.set(found.head.forgotten());
        return Verdict::PASS;
    }
    let client = found.head.client();
    let head = found.head.heard(client, states(packet), packet.proto, now, &config.timeouts);
    found.set(head);
    packet.sent.src = addr;
    packet.sent.dst = client_address(head, &packet.tuple);
    packet.sent.ports = Tuple::join(port, client_port.or(packet.tuple.dport()));
    if head.has(Head::SNAT) {
        (packet.origin.tuple, packet.origin.head) = (packet.tuple, head.0);
        if !k.origin(packet, packet.proto, false) {
            return Verdict::drop(Event::NoRoute);
        }
        packet.sent.dst = packet.origin.addr;
    }
    if packet.ends() || found.head.is_stale(packet.proto, now, &config.timeouts) {
        // The client's side may never say that it has ended, or may have nothing to say for long.
        let forward = packet.sent.reversed();
        if let Some(other) = k
            .bucket(packet.proto, hash::place(&forward, config.table_seed))
            .and_then(|bucket| bucket.find(&forward, Role::Forward))
        {
            hear(k, &other, other.head.client(), packet, states(packet) & Head::CLOSING);
        }
    }
    deliver(k, packet, client)
}

/// Has a packet that is as a backend was to see it be as its client sent it: one that does not go to a published port
/// comes back as it left. What is known of its flow; of one that no backend was to see so, only that it came from
/// outside.
#[inline(always)]
pub fn undo<K: Kernel>(k: &K, packet: &mut Packet) -> Head {
    let nobody = Head::new(Role::Forward, Client { place: Place::Uplink, via: 0 }, 0, packet.now);
    // Not on the stack, which has 512 bytes.
    packet.sent = packet.tuple.reversed();
    let found = k
        .bucket(packet.proto, hash::place(&packet.sent, k.config().table_seed))
        .and_then(|bucket| bucket.find(&packet.sent, Role::Reply));
    let Some(found) = found else { return nobody };
    let Some((port, client_port, addr)) = found.read() else { return nobody };
    packet.tuple.src = client_address(found.head, &packet.sent);
    packet.tuple.dst = addr;
    packet.tuple.ports = Tuple::join(client_port.or(packet.sent.dport()), port);
    if found.head.has(Head::SNAT) {
        (packet.origin.tuple, packet.origin.head) = (packet.sent, found.head.0);
        // Whose it is nobody knows: what is left is for nobody.
        if !k.origin(packet, packet.proto, false) {
            return nobody;
        }
        packet.tuple.src = packet.origin.addr;
    }
    Head::new(Role::Forward, found.head.client(), 0, packet.now)
}

/// Finds the address of a client whom the backend of a reply flow knows by the node's address, or remembers it: in
/// `packet.origin`, which says of which flow, and has the head of that. The entry is kept as long as the other.
#[inline(always)]
pub fn origin<K: Kernel>(k: &K, packet: &mut Packet, proto: u8, put: bool) -> bool {
    let (config, flow) = (k.config(), &mut packet.origin);
    let head = Head(flow.head).beside();
    let Some(bucket) = k.bucket(proto, hash::place(&flow.tuple, config.table_seed)) else { return false };
    let found = bucket.find(&flow.tuple, Role::Origin);
    if put {
        flow.head = head.0;
        return match found {
            Some(found) => found.replace(flow),
            None => insert(k, bucket, flow, proto, packet.now),
        };
    }
    let Some(found) = found else { return false };
    let Some((_, _, addr)) = found.read() else { return false };
    flow.addr = addr;
    found.set(found.head.as_old_as(head));
    !found.head.is_over(proto, packet.now, &config.timeouts)
}

/// A packet for a published port that another node balanced to a task of this one.
#[inline(always)]
pub(super) fn arrive<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    peer: u32,
    port: NetPort,
    terms: Terms,
    mac: Mac,
) -> Verdict {
    let tuple = packet.tuple;
    let Some(task) = k.endpoint_of(mac) else {
        return gone(k, packet, peer, packet.may_begin() && !terms.last());
    };
    let client = if terms.direct() {
        Client { place: Place::Uplink, via: 0 }
    } else {
        Client { place: Place::Peer, via: peer }
    };
    let own = task.beside(&tuple.dst);
    if own == Addr16::ANY_V6 {
        return Verdict::drop(Event::NoRoute);
    }
    packet.sent = Tuple::new(tuple.src, tuple.sport(), own, port);
    packet.now = k.now();
    let marks = Head::HERE | Head::idle_mark(terms.idle());
    let head = Head::new(Role::Reply, client, marks, packet.now);
    let changed = remember(k, packet, head, packet.is_syn());
    if changed == NO_PORT {
        return Verdict::drop(Event::PortsExhausted);
    }
    packet.sent.ports = Tuple::join(NetPort(changed as u16).or(tuple.sport()), port);
    if packet.is_syn() {
        k.sign(packet, Seen::Given, 0);
    }
    packet.hop = Hop::task(task.device, mac);
    Verdict::SEND
}

/// A packet between addresses of a network, translated already. Where it may begin a flow, its frame comes from the task
/// that it is for, or else from the node, and then the kernel has it.
///
/// Of a task whose end is not known yet the device is gone: what is sent there is lost and comes again, while the kernel
/// would say that there is no such host.
#[inline(always)]
pub(super) fn knock<K: Kernel>(k: &K, packet: &mut Packet, peer: u32, vni: u32, from: Mac) -> Verdict {
    if k.peer(peer).is_none_or(|node| node.mac == from) {
        pass(k, packet, vni);
        return Verdict::PASS;
    }
    match k.endpoint_of(from).filter(|task| task.vni == vni && task.owns(&packet.tuple.dst)) {
        Some(task) => {
            pass(k, packet, vni);
            packet.sent = packet.tuple;
            packet.hop = Hop::task(task.device, from);
            Verdict::SEND
        }
        None => gone(k, packet, peer, true),
    }
}

/// A packet goes to a task as it is.
#[inline(always)]
fn pass<K: Kernel>(k: &K, packet: &Packet, vni: u32) {
    if packet.is_syn() {
        k.sign(packet, Seen::Passed, vni);
    }
}

/// A packet for a task that is gone. What begins a flow may have another: the node that it came in by chooses.
#[inline(always)]
fn gone<K: Kernel>(k: &K, packet: &mut Packet, peer: u32, may_return: bool) -> Verdict {
    let Some(node) = k.peer(peer) else { return Verdict::drop(Event::NoRoute) };
    if may_return {
        count(k, packet, Event::Returned);
        packet.hop = Hop::peer(peer, Tag::Returned, node.mac);
        return Verdict::SEND;
    }
    count(k, packet, Event::BackendGone);
    packet.hop = Hop::peer(peer, Tag::Reply, node.mac);
    Verdict::refuse(Refusal::Closed)
}

/// An answer that the task's node has translated back, at the node that the client came in by.
#[inline(always)]
pub(super) fn back<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    let forward = packet.tuple.reversed();
    let found = k
        .bucket(packet.proto, hash::place(&forward, k.config().table_seed))
        .and_then(|bucket| bucket.find(&forward, Role::Forward));
    if let Some(found) = found {
        packet.now = k.now();
        let client = found.head.client();
        hear(k, &found, client, packet, states(packet) & Head::CLOSING);
        return deliver(k, packet, client);
    }
    // Forgotten, but it can only have come for one of the node's own addresses.
    if k.is_local(&packet.tuple.src) {
        return deliver(k, packet, Client { place: Place::Uplink, via: 0 });
    }
    Verdict::drop(Event::NoRoute)
}

/// [`remember`] found no port.
pub(super) const NO_PORT: u32 = 1 << 16;

/// Remembers how to translate the answers to `packet.sent`, which is what the backend will see of the packet. What
/// the client's port must be instead, or 0 if it may stay, or [`NO_PORT`] if none is free.
///
/// Two flows can meet in one tuple: a client may use one port towards two nodes, and both may choose one task.
/// `begins`: it is the first packet of its flow, of which nothing can be known.
#[inline(always)]
pub(super) fn remember<K: Kernel>(k: &K, packet: &mut Packet, head: Head, begins: bool) -> u32 {
    draft(packet, head, NetPort::ANY);
    if place_both(k, packet, begins) {
        return 0;
    }
    // Whatever is not the first of its flow may be known with another port, though its own is free by now.
    if !begins {
        let port = other_place(k, packet, false);
        if port != 0 {
            return port;
        }
        draft(packet, head, NetPort::ANY);
        if place_both(k, packet, true) {
            return 0;
        }
    }
    match other_place(k, packet, true) {
        0 => NO_PORT,
        port => port,
    }
}

/// Remembers the same of a flow whose port is known already: because it goes on, or because it ends.
#[inline(always)]
pub(super) fn renew<K: Kernel>(k: &K, packet: &mut Packet, head: Head, client_port: NetPort) {
    draft(packet, head, client_port);
    place_both(k, packet, true);
}

/// The answers to `packet.sent`, with this port of the client's.
#[inline(always)]
fn draft(packet: &mut Packet, head: Head, client_port: NetPort) {
    let Tuple { src, dst, .. } = packet.sent;
    // Field by field: a whole one would lie on the stack first.
    let flow = &mut packet.draft;
    (flow.tuple.src, flow.tuple.dst) = (dst, src);
    flow.tuple.ports = Tuple::join(packet.sent.dport(), client_port.or(packet.tuple.sport()));
    flow.port = packet.tuple.dport();
    flow.client_port = if client_port == NetPort::ANY { NetPort::ANY } else { packet.tuple.sport() };
    flow.head = head.0;
    flow.addr = packet.tuple.dst;
}

/// Remembers the drafted reply flow, and whose it is where the backend does not know. A port that another client has
/// is taken.
#[inline(always)]
fn place_both<K: Kernel>(k: &K, packet: &mut Packet, may_insert: bool) -> bool {
    if !Head(packet.draft.head).has(Head::SNAT) {
        return k.place(packet, may_insert);
    }
    (packet.origin.tuple, packet.origin.head) = (packet.draft.tuple, packet.draft.head);
    let known = k.origin(packet, packet.proto, false);
    if known && packet.origin.addr != packet.tuple.src {
        return false;
    }
    packet.origin.addr = packet.tuple.src;
    k.place(packet, may_insert) && (known || k.origin(packet, packet.proto, true))
}

/// With another port: the one that it is known with, or the first that is free, if one may be taken; else 0.
#[inline(always)]
fn other_place<K: Kernel>(k: &K, packet: &mut Packet, may_insert: bool) -> u32 {
    let mut round = 0;
    while round < TRIES {
        let port = other_port(&packet.tuple, round);
        packet.draft.tuple.ports = Tuple::join(packet.sent.dport(), port);
        packet.draft.client_port = packet.tuple.sport();
        if place_both(k, packet, may_insert) {
            if may_insert {
                k.count(Event::PortChanged);
            }
            return u32::from(port.0);
        }
        round += 1;
    }
    0
}

/// Gives a new flow a place if there is one, and counts at whose cost.
#[inline(always)]
pub(super) fn insert<K: Kernel>(k: &K, bucket: Shared<'_>, flow: &Flow, proto: u8, now: u32) -> bool {
    let done = bucket.insert(flow, proto, now, &k.config().timeouts);
    match done {
        Inserted::Placed => {}
        Inserted::Evicted => k.count(Event::Evicted),
        Inserted::Full => k.count(Event::TableFull),
    }
    done != Inserted::Full
}

/// Whether the drafted reply flow is known, or could be made if it may be.
#[inline(always)]
pub fn place<K: Kernel>(k: &K, packet: &Packet, may_insert: bool) -> bool {
    let (flow, config, now) = (&packet.draft, k.config(), packet.now);
    let Some(bucket) = k.bucket(packet.proto, hash::place(&flow.tuple, config.table_seed)) else {
        return false;
    };
    let Some(found) = bucket.find(&flow.tuple, Role::Reply) else {
        if !may_insert {
            return false;
        }
        // If it is full: another port is another bucket.
        return insert(k, bucket, flow, packet.proto, now);
    };
    let client = Head(flow.head).client();
    let same = client.may_be(found.head.client()) && found.leads_as(flow);
    // The same client may use the same port again, and has more to say than that the last flow ended.
    let again = same && packet.is_syn() && found.head.has(Head::CLOSING);
    if same && !again {
        let states = states(packet) & Head::CLOSING;
        found.set(found.head.heard(client, states, packet.proto, now, &config.timeouts));
        return true;
    }
    // A segment in the middle of a flow takes nobody's place: its own may be elsewhere. And what is closing may
    // have something to say yet.
    let begins = packet.proto != TCP || packet.is_syn();
    let free = again || found.head.age(now) > found.head.timeout(packet.proto, &config.timeouts);
    may_insert && begins && free && found.replace(flow)
}

/// One of the ports that a flow may get instead of its client's: 32768 to 65535.
#[inline(always)]
pub(super) const fn other_port(tuple: &Tuple, round: u32) -> NetPort {
    let hash = hash::place(tuple, 0x706f_7274 + round as u64);
    NetPort::new(0x8000 | hash as u16)
}

/// To where a client is.
#[inline(always)]
pub(super) fn deliver<K: Kernel>(k: &K, packet: &mut Packet, client: Client) -> Verdict {
    packet.hop = match client.place {
        Place::Task => match k.endpoint(client.via) {
            Some(task) => Hop::task(client.via, task.mac),
            None => return Verdict::drop(Event::NoRoute),
        },
        // By whichever device, or it is a process here.
        Place::Uplink if client.via == 0 && k.is_local(&packet.sent.dst) => Hop::stack(),
        Place::Uplink => Hop::uplink(client.via),
        Place::Stack => Hop::stack(),
        Place::Peer => match k.peer(client.via) {
            Some(peer) => Hop::peer(client.via, Tag::Reply, peer.mac),
            None => return Verdict::drop(Event::NoRoute),
        },
    };
    Verdict::SEND
}

/// The client's own address, from what its backend answers to.
#[inline(always)]
pub(super) const fn client_address(head: Head, answer: &Tuple) -> Addr16 {
    if head.has(Head::SELF) {
        answer.src
    } else if head.has(Head::LOOPBACK) {
        loopback(&answer.dst, head.client())
    } else {
        answer.dst
    }
}

/// The loopback address that a process of this node used.
#[inline(always)]
const fn loopback(like: &Addr16, client: Client) -> Addr16 {
    if like.is_v4() {
        Addr16::from_word((0x7f00_0000 | client.via).to_be())
    } else {
        Addr16([0, 0, 0, 1_u32.to_be()])
    }
}
