//! From the client to a backend.

use super::count;
use super::replies::{self, NO_PORT, remember};
use crate::abi::{
    Addr16, AffinityKey, AffinityValue, Backend, Frontend, FrontendKey, NO_BACKEND, NetPort, SourceKey, TCP,
};
use crate::flow::{Client, Flow, Head, Inserted, Place, Role, states};
use crate::hash;
use crate::kernel::Kernel;
use crate::packet::{Packet, Tuple};
use crate::tunnel::Tag;
use crate::verdict::{Event, Hop, Refusal, Verdict};

/// Slots that are looked into before a frontend is taken for empty: only while the agent writes its table is one
/// of them not of a live backend.
const TRIES: u32 = 4;

/// A packet to a VIP; `PASS` if it is none.
#[inline(always)]
pub(super) fn vip<K: Kernel>(k: &K, packet: &mut Packet, client: Client) -> Verdict {
    balance(k, packet, client, Head::HERE, |packet| {
        let Some(frontend) = k.frontend(&FrontendKey::vip(packet.tuple.dst)) else { return Verdict::PASS };
        packet.frontend = frontend;
        if !is_member(k, packet, client, &frontend) {
            count(k, packet, Event::Prohibited);
            return Verdict::refuse(Refusal::Prohibited);
        }
        Verdict::ADMIT
    })
}

/// Whether a client may use a VIP: tasks of its network with their own addresses, and the node itself.
#[inline(always)]
pub(super) fn is_member<K: Kernel>(k: &K, packet: &Packet, client: Client, frontend: &Frontend) -> bool {
    match client.place {
        Place::Task => k
            .endpoint(client.via)
            .is_some_and(|task| task.vni == frontend.vni && task.owns(&packet.tuple.src)),
        Place::Stack => true,
        Place::Uplink | Place::Peer => false,
    }
}

/// A packet to a published port; `PASS` if it is none: then the node's kernel answers, as for any port.
#[inline(always)]
pub(super) fn published<K: Kernel>(k: &K, packet: &mut Packet, client: Client) -> Verdict {
    balance(k, packet, client, 0, |packet| match find(k, packet, client) {
        Some(frontend) => {
            packet.frontend = frontend;
            may_enter(k, packet)
        }
        None => Verdict::PASS,
    })
}

/// The frontend of a published port: that of the address itself, or else that of all of the node's.
#[inline(always)]
fn find<K: Kernel>(k: &K, packet: &Packet, client: Client) -> Option<Frontend> {
    let (dst, port, proto) = (&packet.tuple.dst, packet.tuple.dport(), packet.proto);
    let at = k.frontend(&FrontendKey::published(*dst, port, proto));
    if at.is_some() {
        return at;
    }
    let ours = k.is_local(dst) || (client.place == Place::Stack && dst.is_loopback());
    if !ours {
        return None;
    }
    let any = if dst.is_v4() { Addr16::ANY_V4 } else { Addr16::ANY_V6 };
    k.frontend(&FrontendKey::published(any, port, proto))
}

/// Whether a client is let in, where there is somebody to let it in to.
#[inline(always)]
fn may_enter<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    let frontend = &packet.frontend;
    if frontend.backends == 0 {
        count(k, packet, Event::NoBackend);
        return Verdict::PASS;
    }
    let source = SourceKey { frontend: frontend.id, addr: packet.tuple.src };
    if frontend.has(Frontend::GUARDED) && !k.lets_in(&source) {
        count(k, packet, Event::Prohibited);
        return Verdict::PASS;
    }
    Verdict::ADMIT
}

/// Sends a packet to its flow's backend, or to one that is chosen now. `marks` are [`Head::HERE`] if it is translated
/// here wherever the backend is. `admit` finds the frontend, and is asked for unknown flows only.
#[inline(always)]
fn balance<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    client: Client,
    marks: u64,
    admit: impl FnOnce(&mut Packet) -> Verdict,
) -> Verdict {
    let now = k.now();
    let Some(bucket) = k.bucket(packet.proto, hash::place(&packet.tuple, k.config().table_seed)) else {
        return Verdict::PASS;
    };
    let found = bucket.find(&packet.tuple, Role::Forward);
    if let Some(found) = &found
        && client.may_be(found.head.client())
        && let Some((port, client_port, target)) = found.read()
    {
        let [id, generation, ..] = target.0;
        let over = found.head.is_over(packet.proto, now, &k.config().timeouts);
        if let Some(backend) = k.backend(id)
            && backend.serves(generation)
            && !(if packet.proto == TCP {
                // The same client may use the same port again, long after.
                packet.is_syn() && (over || !backend.is_active())
            } else {
                over
            })
        {
            found.touch_by(client, now, states(packet));
            k.account(id, packet.len, false);
            let head = found.head.by(client);
            // The task's side may never say that it has ended, or may have nothing to say for long.
            let renew = packet.ends() || head.0 != found.head.0 || head.age(now) != 0;
            return forward(k, packet, head, backend, (port, client_port), renew);
        }
        if packet.proto == TCP && !packet.is_syn() {
            count(k, packet, Event::BackendGone);
            return Verdict::refuse(Refusal::Closed);
        }
    }
    let verdict = admit(packet);
    if verdict != Verdict::ADMIT {
        return verdict;
    }
    begin(k, packet, Head::new(Role::Forward, client, marks, now))
}

/// Chooses a backend for a flow, remembers both, and sends its first packet on. `head` is what is known of the flow.
#[inline(always)]
fn begin<K: Kernel>(k: &K, packet: &mut Packet, head: Head) -> Verdict {
    let (client, now) = (head.client(), k.now());
    let id = k.pick(packet, now);
    let Some(backend) = k.backend(id).filter(|backend| backend.is_active()) else {
        count(k, packet, Event::NoBackend);
        return Verdict::refuse(Refusal::Closed);
    };
    let port = packet.frontend.target.or(packet.tuple.dport());
    let here = head.has(Head::HERE) || backend.peer == 0 || packet.tuple.src.is_loopback();
    let mut client_port = NetPort::ANY;
    if here {
        let undone = translate(k, packet, client, backend, port, NetPort::ANY);
        if undone == 0 {
            return Verdict::drop(Event::NoRoute);
        }
        // A datagram of a flow that is known came by its forward entry.
        let begins = packet.proto != TCP || packet.is_syn();
        let changed = remember(k, packet, Head::new(Role::Reply, client, undone, now), now, begins);
        if changed == NO_PORT {
            return Verdict::drop(Event::PortsExhausted);
        }
        client_port = NetPort(changed as u16);
    }
    packet.draft = Flow {
        tuple: packet.tuple,
        port,
        client_port,
        head: head.0 | if here { Head::HERE } else { 0 },
        addr: Flow::target(id, backend.generation, packet.frontend.id),
    };
    packet.event = first(packet) as u8;
    k.note(packet, now);
    k.account(id, packet.len, true);
    forward(k, packet, Head(packet.draft.head), backend, (port, client_port), false)
}

/// What the first packet of a flow that comes by here counts as.
#[inline(always)]
const fn first(packet: &Packet) -> Event {
    if packet.proto == TCP && !packet.is_syn() { Event::MidFlow } else { Event::NewFlow }
}

/// Remembers the drafted flow, if there is room, in the place of an old one with the same tuple.
#[inline(always)]
pub fn note<K: Kernel>(k: &K, packet: &Packet, now: u32) {
    k.count(first(packet));
    let config = k.config();
    let flow = &packet.draft;
    let Some(bucket) = k.bucket(packet.proto, hash::place(&flow.tuple, config.table_seed)) else { return };
    let done = match bucket.find(&flow.tuple, Role::Forward) {
        Some(found) if found.replace(flow) => Inserted::Placed,
        Some(_) => Inserted::Full,
        None => bucket.insert(flow, packet.proto, now, &config.timeouts),
    };
    match done {
        Inserted::Placed => {}
        Inserted::Evicted => k.count(Event::Evicted),
        Inserted::Full => k.count(Event::TableFull),
    }
}

/// Who gets a new flow; [`NO_BACKEND`]: nobody is there.
#[inline(always)]
pub fn pick<K: Kernel>(k: &K, packet: &Packet, now: u32) -> u32 {
    let (tuple, frontend, config) = (&packet.tuple, &packet.frontend, k.config());
    if frontend.backends == 0 {
        return NO_BACKEND;
    }
    if frontend.affinity != 0 {
        return stay(k, packet, now);
    }
    // Even where nodes need not agree it is a hash and no random number: a flow that was forgotten is balanced
    // as it was before.
    let seed = if frontend.has(Frontend::HASHED) { config.mesh_seed } else { config.node_seed };
    in_slots(k, frontend, hash::slot(&tuple.src, tuple.sport(), tuple.dport(), packet.proto, seed))
}

/// Who gets a flow of a client whose flows stay together.
#[inline(always)]
fn stay<K: Kernel>(k: &K, packet: &Packet, now: u32) -> u32 {
    let frontend = &packet.frontend;
    let key = AffinityKey { client: packet.tuple.src, frontend: frontend.id };
    if let Some(AffinityValue { backend: id, generation, seen }) = k.affinity(&key)
        // Another CPU may be ahead of this one's time.
        && now.wrapping_sub(seen).cast_signed() <= frontend.affinity.cast_signed()
        && k.backend(id).is_some_and(|backend| backend.serves(generation) && backend.is_active())
    {
        k.remember(&key, &AffinityValue { backend: id, generation, seen: now });
        return id;
    }
    // Nodes agree about clients that they see for the first time.
    let hash = hash::slot(&key.client, NetPort::ANY, NetPort::ANY, 0, k.config().mesh_seed);
    let id = in_slots(k, frontend, hash);
    let Some(backend) = k.backend(id) else { return NO_BACKEND };
    k.remember(&key, &AffinityValue { backend: id, generation: backend.generation, seen: now });
    id
}

/// The backend in a slot, or in one of the next.
#[inline(always)]
pub(crate) fn in_slots<K: Kernel>(k: &K, frontend: &Frontend, hash: u32) -> u32 {
    let mut slot = hash;
    let mut left = TRIES;
    while left > 0 {
        let id = k.slot(frontend.slots.wrapping_add(slot & frontend.mask));
        if k.backend(id).is_some_and(Backend::is_active) {
            return id;
        }
        slot = slot.wrapping_add(1);
        left -= 1;
    }
    NO_BACKEND
}

/// The packet on its way to the backend: with its flow's head, the backend's port and the client's. What is
/// remembered for answers is renewed where that is asked for.
#[inline(always)]
fn forward<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    head: Head,
    backend: &Backend,
    (port, client_port): (NetPort, NetPort),
    renew: bool,
) -> Verdict {
    let client = head.client();
    if !head.has(Head::HERE) {
        packet.hop = Hop::peer(backend.peer, Tag::Forward(port), backend.mac);
        return Verdict::SEND;
    }
    let undone = translate(k, packet, client, backend, port, client_port);
    if undone == 0 {
        return Verdict::drop(Event::NoRoute);
    }
    if renew {
        let now = k.now();
        replies::renew(k, packet, Head::new(Role::Reply, client, undone, now), client_port, now);
    }
    leave_for(k, packet, backend)
}

/// To a backend, of what is translated already.
#[inline(always)]
pub(super) fn leave_for<K: Kernel>(k: &K, packet: &mut Packet, backend: &Backend) -> Verdict {
    if backend.peer == 0 {
        packet.hop = Hop::task(backend.device, backend.mac);
        return Verdict::SEND;
    }
    let Some(peer) = k.peer(backend.peer) else { return Verdict::drop(Event::NoRoute) };
    packet.hop = Hop::peer(backend.peer, Tag::Network(backend.vni), peer.mac);
    Verdict::SEND
}

/// Gives the packet the addresses and ports that the backend is to see. The marks that undo it; 0: it cannot be.
#[inline(always)]
fn translate<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    client: Client,
    backend: &Backend,
    port: NetPort,
    client_port: NetPort,
) -> u64 {
    let (src, marks) = client_of(k, &packet.tuple.src, client, backend);
    if marks == 0 {
        return 0;
    }
    packet.sent = Tuple::new(src, client_port.or(packet.tuple.sport()), backend.addr, port);
    marks
}

/// A client's address as the backend is to see it, and the marks that undo it; 0: it cannot be.
#[inline(always)]
pub(super) fn client_of<K: Kernel>(k: &K, own: &Addr16, client: Client, backend: &Backend) -> (Addr16, u64) {
    let to_itself = client.place == Place::Task && client.via == backend.device;
    if !to_itself && !own.is_loopback() {
        return (*own, Head::HERE);
    }
    // It would not answer itself, and cannot answer 127.0.0.1.
    match k.network(backend.vni).and_then(|network| network.beside(&backend.addr)) {
        Some(node) => (node, Head::HERE | if to_itself { Head::SELF } else { Head::LOOPBACK }),
        None => (Addr16::ANY_V6, 0),
    }
}
