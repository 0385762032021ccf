//! ICMP errors about packets of known flows.
//!
//! An error quotes the packet that it is about as its sender saw it. Whoever sent that packet knows it otherwise,
//! so the quoted addresses and ports are translated along with the error's own: what RFC 5508 asks of every
//! translator, and what path MTU discovery through a balancer depends on.

use super::balance::{client_of, leave_for};
use super::replies::{client_address, deliver};
use crate::abi::{Addr16, Mac, NetPort};
use crate::flow::{Found, Head, Role};
use crate::hash;
use crate::kernel::Kernel;
use crate::packet::{Packet, Tuple};
use crate::tunnel::{Tag, Terms};
use crate::verdict::{Event, Hop, Verdict};

/// An error that anybody here sent: about a packet to a backend, or about an answer to a client. `PASS`: about
/// neither.
#[inline(always)]
pub fn error<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    let reversed = packet.quoted.reversed();
    if let Some(found) = find(k, packet, &reversed, Role::Reply) {
        return to_client(k, packet, &found);
    }
    match find(k, packet, &reversed, Role::Forward) {
        Some(found) => to_backend(k, packet, &found),
        None => Verdict::PASS,
    }
}

/// An error about an answer, on its way to the task that sent it, from the node that the client came in by.
#[inline(always)]
pub(super) fn arrive<K: Kernel>(k: &K, packet: &mut Packet, port: NetPort, mac: Mac) -> Verdict {
    let Some(task) = k.endpoint_of(mac) else { return Verdict::drop(Event::BackendGone) };
    let own = task.beside(&packet.tuple.dst);
    let reply = Tuple::new(own, port, packet.quoted.dst, packet.quoted.dport());
    if find(k, packet, &reply, Role::Reply).is_none() {
        return Verdict::drop(Event::NoRoute);
    }
    packet.quoted_sent = reply;
    packet.sent.dst = own;
    packet.hop = Hop::task(task.device, mac);
    Verdict::SEND
}

/// An error that the task's node has translated, at the node that the client came in by.
#[inline(always)]
pub(super) fn back<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    let quoted = packet.quoted;
    match find(k, packet, &quoted, Role::Forward) {
        Some(found) => deliver(k, packet, found.head.client()),
        None => Verdict::drop(Event::NoRoute),
    }
}

#[inline(always)]
fn find<'k, K: Kernel>(k: &'k K, packet: &Packet, tuple: &Tuple, role: Role) -> Option<Found<'k>> {
    let place = hash::place(tuple, k.config().table_seed);
    k.bucket(packet.quoted_proto, place).and_then(|bucket| bucket.find(tuple, role))
}

/// About a packet that the backend of a reply flow got, or should have got.
#[inline(always)]
fn to_client<K: Kernel>(k: &K, packet: &mut Packet, found: &Found<'_>) -> Verdict {
    let Some((port, client_port, addr)) = found.read() else { return Verdict::PASS };
    let quoted = packet.quoted;
    let mut client = client_address(found.head, &quoted.reversed());
    if found.head.has(Head::SNAT) {
        (packet.origin.tuple, packet.origin.head) = (quoted.reversed(), found.head.0);
        packet.now = k.now();
        if !k.origin(packet, packet.quoted_proto, false) {
            return Verdict::drop(Event::NoRoute);
        }
        client = packet.origin.addr;
    }
    packet.quoted_sent = Tuple::new(client, client_port.or(quoted.sport()), addr, port);
    packet.sent.dst = client;
    // A router on the way has an address of its own; the backend has the one that the client knows.
    if packet.tuple.src == quoted.dst {
        packet.sent.src = addr;
    }
    deliver(k, packet, found.head.client())
}

/// About an answer that the client of a forward flow got, or should have got.
#[inline(always)]
fn to_backend<K: Kernel>(k: &K, packet: &mut Packet, found: &Found<'_>) -> Verdict {
    let Some((port, client_port, target)) = found.read() else { return Verdict::PASS };
    let [id, generation, ..] = target.0;
    let Some(backend) = k.backend(id).filter(|backend| backend.serves(generation)) else {
        return Verdict::drop(Event::BackendGone);
    };
    if !found.head.has(Head::HERE) {
        packet.hop = Hop::peer(backend.peer, Tag::Forward(port, Terms::default()), backend.mac);
        return Verdict::SEND;
    }
    let client = client_of(k, &packet.quoted.dst, found.head, backend).0;
    if client == Addr16::ANY_V6 {
        return Verdict::drop(Event::NoRoute);
    }
    packet.quoted_sent = Tuple::new(backend.addr, port, client, client_port.or(packet.quoted.dport()));
    packet.sent.dst = backend.addr;
    if packet.tuple.src == packet.quoted.dst {
        packet.sent.src = client;
    }
    leave_for(k, packet, backend)
}
