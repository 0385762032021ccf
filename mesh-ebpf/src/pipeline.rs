//! What becomes of a packet, by where it comes in.
//!
//! A flow is balanced once, by the node that it enters the mesh at, and remembered there. Translation is made
//! once, too: for a VIP by the client's node, for a published port by the task's node, to which the packet is
//! tunnelled as the client sent it ([`crate::tunnel`]). Whoever translates remembers how to translate back.
//! Answers retrace the way, so no address is ever used where it does not belong.
//!
//! None of this needs the socket-level balancer; that only saves it work.

mod balance;
mod errors;
mod replies;
mod signs;

/// Steps that a kernel may have as functions of their own.
pub mod step {
    pub use super::balance::{begin, pick, readmit, retrace};
    pub use super::errors::error;
    pub use super::replies::{answer, origin, place, undo};
    pub use super::signs::sign;
}

pub(crate) use self::balance::in_slots;
pub use self::signs::Seen;
use crate::abi::{Config, FrontendKey, Mac, TCP, UDP};
use crate::flow::{Client, Place};
use crate::kernel::Kernel;
use crate::packet::Packet;
use crate::tunnel::Tag;
use crate::verdict::{Event, Refusal, Verdict};

/// A packet from a task of this node, by the host's end of its veth.
#[inline(always)]
pub fn from_task<K: Kernel>(k: &K, packet: &mut Packet, device: u32) -> Verdict {
    let client = Client { place: Place::Task, via: device };
    if k.may_be_vip(&packet.tuple.dst) {
        let verdict = to_vip(k, packet, client);
        if verdict != Verdict::PASS {
            return verdict;
        }
    }
    if !has_ports(packet) {
        if packet.quoted_proto == 0 {
            return Verdict::PASS;
        }
        k.sign(packet, Seen::Error, device);
        return k.error(packet);
    }
    if packet.is_sign() {
        k.sign(packet, Seen::Sent, device);
    }
    let verdict = k.answer(packet);
    if verdict != Verdict::PASS {
        return verdict;
    }
    let published = k.published(packet.proto, packet.tuple.dport());
    if published.is_any() && k.endpoint(device).is_some_and(|task| task.owns(&packet.tuple.src)) {
        return balance::published(k, packet, client, published);
    }
    Verdict::PASS
}

/// A packet from beyond one of the node's own devices.
#[inline(always)]
pub fn from_net<K: Kernel>(k: &K, packet: &mut Packet, device: u32) -> Verdict {
    if has_ports(packet) {
        let published = k.published(packet.proto, packet.tuple.dport());
        if published.is_any() && !packet.tuple.src.is_loopback() {
            return balance::published(k, packet, Client { place: Place::Uplink, via: device }, published);
        }
    }
    if packet.quoted_proto != 0 { k.error(packet) } else { Verdict::PASS }
}

/// A packet of the node's own, as its loopback device receives it.
#[inline(always)]
pub fn from_host<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    let src = &packet.tuple.src;
    // All of 127.0.0.0/8 is the node's, and the answer is for the one that was used.
    let via = if src.is_v4() && src.is_loopback() { u32::from_be(src.0[3]) & 0xff_ffff } else { 0 };
    let client = Client { place: Place::Stack, via };
    if k.may_be_vip(&packet.tuple.dst) {
        let verdict = to_vip(k, packet, client);
        if verdict != Verdict::PASS {
            return verdict;
        }
    }
    if has_ports(packet) {
        let published = k.published(packet.proto, packet.tuple.dport());
        if published.is_any() {
            return balance::published(k, packet, client, published);
        }
    }
    if packet.quoted_proto != 0 { k.error(packet) } else { Verdict::PASS }
}

/// A packet out of the tunnel: from which node, with which key, and the inner frame's destination and source.
#[inline(always)]
pub fn from_mesh<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    peer: u32,
    vni: u32,
    [mac, from]: [Mac; 2],
) -> Verdict {
    if !has_ports(packet) {
        if packet.quoted_proto == 0 {
            return Verdict::PASS;
        }
        return match Tag::of(vni) {
            Tag::Network(_) => k.error(packet),
            Tag::Forward(port, _) => errors::arrive(k, packet, port, mac),
            Tag::Reply => errors::back(k, packet),
            Tag::Returned => Verdict::drop(Event::NoRoute),
        };
    }
    match Tag::of(vni) {
        Tag::Network(vni) => {
            let verdict = k.answer(packet);
            if verdict == Verdict::PASS && packet.may_begin() {
                replies::knock(k, packet, peer, vni, from)
            } else {
                verdict
            }
        }
        Tag::Forward(port, terms) => replies::arrive(k, packet, peer, port, terms, mac),
        Tag::Reply => replies::back(k, packet),
        Tag::Returned => balance::again(k, packet),
    }
}

/// Counts what becomes of a packet, and notes it for those who watch.
#[inline(always)]
fn count<K: Kernel>(k: &K, packet: &mut Packet, event: Event) {
    k.count(event);
    packet.event = event as u8;
}

/// Whether the flow of a segment, which is not known, may be about to come from other maps. An answer that was let pass
/// would come from a stranger, whom the client resets.
#[inline(always)]
fn may_come(config: &Config, packet: &Packet) -> bool {
    config.moving != 0 && packet.proto == TCP && !packet.is_syn()
}

/// TCP and UDP, the protocols that are balanced.
#[inline(always)]
const fn has_ports(packet: &Packet) -> bool {
    packet.proto == TCP || packet.proto == UDP
}

/// A packet to what may be a VIP. All of one is answered here, nothing of it reaches the node's own sockets.
#[inline(always)]
fn to_vip<K: Kernel>(k: &K, packet: &mut Packet, client: Client) -> Verdict {
    if has_ports(packet) {
        return balance::vip(k, packet, client);
    }
    let Some(frontend) = k.frontend(&FrontendKey::vip(packet.tuple.dst)) else { return Verdict::PASS };
    if !balance::is_member(k, packet, client, &frontend) {
        count(k, packet, Event::Prohibited);
        return Verdict::refuse(Refusal::Prohibited);
    }
    if packet.quoted_proto != 0 {
        return k.error(packet);
    }
    if !packet.is_ping() {
        return Verdict::drop(Event::Unsupported);
    }
    if frontend.backends == 0 {
        count(k, packet, Event::NoBackend);
        return Verdict::refuse(Refusal::Unreachable);
    }
    count(k, packet, Event::Ping);
    Verdict::ECHO
}

#[cfg(test)]
mod tests;
