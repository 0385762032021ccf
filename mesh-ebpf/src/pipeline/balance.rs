//! From the client to a backend.

use super::replies::{self, NO_PORT, remember};
use super::{Seen, count, may_come};
use crate::abi::{
    Addr16, AffinityKey, AffinityValue, Backend, Frontend, FrontendKey, NO_BACKEND, NetPort, Published,
    SourceKey, TCP,
};
use crate::flow::{Client, Flow, Found, Head, Place, Role, states};
use crate::hash;
use crate::kernel::Kernel;
use crate::packet::{Packet, Tuple};
use crate::tunnel::{Tag, Terms};
use crate::verdict::{Event, Hop, Refusal, Verdict};

/// Slots that are looked into before a frontend is taken for empty: only while the agent writes its table is one
/// of them not of a live backend.
const TRIES: u32 = 4;
/// The same for another backend than one that has just left, whose share of the table may be ten times the others'.
const OTHER_TRIES: u32 = 64;
/// Times this and one more is the next slot, in another part of the table: as many steps as there are slots come by each
/// of them once. A step of one would stay in a row of slots of the same backend, of which Maglev makes long ones now and
/// then. From L'Ecuyer, "Tables of Linear Congruential Generators of Different Sizes", 1999.
const FACTOR: u32 = 2_891_336_453;

/// A packet to a VIP; `PASS` if it is none.
#[inline(always)]
pub(super) fn vip<K: Kernel>(k: &K, packet: &mut Packet, client: Client) -> Verdict {
    balance(k, packet, client, Head::HERE, |packet| join(k, packet, client))
}

/// Finds the frontend of a VIP, and whether a client may use it; `PASS` if it is none.
#[inline(always)]
fn join<K: Kernel>(k: &K, packet: &mut Packet, client: Client) -> Verdict {
    let Some(frontend) = k.frontend(&FrontendKey::vip(packet.tuple.dst)) else { return Verdict::PASS };
    packet.frontend = frontend;
    if !is_member(k, packet, client, &frontend) {
        count(k, packet, Event::Prohibited);
        return Verdict::refuse(Refusal::Prohibited);
    }
    Verdict::ADMIT
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
pub(super) fn published<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    client: Client,
    published: Published,
) -> Verdict {
    balance(k, packet, client, 0, |packet| enter(k, packet, client, published))
}

/// A packet that comes back, because its task had just left: to another one.
///
/// The task's node asks for this once, and only for what begins a flow. Where nobody else is there it gets the packet
/// once more, with the note that it is the last time, and refuses it.
#[inline(always)]
pub(super) fn again<K: Kernel>(k: &K, packet: &mut Packet) -> Verdict {
    packet.now = k.now();
    packet.last = 1;
    packet.except = NO_BACKEND;
    // As it came, in the place of what an error would quote.
    packet.quoted = packet.tuple;
    // One after the other and not one within the other: their stacks would not fit.
    let mut head = k.retrace(packet);
    if head.is_empty() {
        let undone = k.undo(packet);
        head = k.retrace(packet);
        if head.is_empty() {
            head = undone;
        }
    }
    packet.sent = packet.tuple;
    let head = k.readmit(packet, head);
    let verdict = if head.is_empty() { Verdict::PASS } else { k.begin(packet, head) };
    packet.tuple = packet.quoted;
    // Who refused it would have to tell the client, which is elsewhere: it asks again.
    if verdict == Verdict::SEND { verdict } else { Verdict::drop(Event::BackendGone) }
}

/// Finds out whose a packet is that comes back, and which backend may not have it again. What is known of its flow;
/// empty: nothing.
#[inline(always)]
pub fn retrace<K: Kernel>(k: &K, packet: &mut Packet) -> Head {
    let found = k
        .bucket(packet.proto, hash::place(&packet.tuple, k.config().table_seed))
        .and_then(|bucket| bucket.find(&packet.tuple, Role::Forward));
    let Some(found) = found else { return Head::default() };
    let Some((_, _, target)) = found.read() else { return Head::default() };
    packet.except = target.0[0];
    Head::new(Role::Forward, found.head.client(), 0, packet.now)
}

/// Finds the frontend of a packet that came back, and whether its client is still let in. The head of its flow; empty:
/// it is not.
#[inline(always)]
pub fn readmit<K: Kernel>(k: &K, packet: &mut Packet, head: Head) -> Head {
    let client = head.client();
    if !client.is_outside() {
        let verdict = join(k, packet, client);
        if verdict != Verdict::PASS {
            return if verdict == Verdict::ADMIT { Head(head.0 | Head::HERE) } else { Head::default() };
        }
    }
    let published = k.published(packet.proto, packet.tuple.dport());
    if enter(k, packet, client, published) == Verdict::ADMIT { head } else { Head::default() }
}

/// Finds the frontend of a published port, and whether a client is let in.
#[inline(always)]
fn enter<K: Kernel>(k: &K, packet: &mut Packet, client: Client, published: Published) -> Verdict {
    match find(k, packet, client, published) {
        Some(frontend) => {
            packet.frontend = frontend;
            may_enter(k, packet)
        }
        None => Verdict::PASS,
    }
}

/// The frontend of a published port: that of the address itself, or else that of all of the node's.
#[inline(always)]
fn find<K: Kernel>(k: &K, packet: &Packet, client: Client, published: Published) -> Option<Frontend> {
    let (dst, port, proto) = (&packet.tuple.dst, packet.tuple.dport(), packet.proto);
    if published.is(Published::SOMEWHERE) {
        let at = k.frontend(&FrontendKey::published(*dst, port, proto));
        if at.is_some() {
            return at;
        }
    }
    let ours = k.is_local(dst) || (client.place == Place::Stack && dst.is_loopback());
    if ours { k.frontend(&FrontendKey::everywhere(dst, port, proto)) } else { None }
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
    let (now, config) = (k.now(), k.config());
    (packet.now, packet.except, packet.last) = (now, NO_BACKEND, 0);
    let Some(bucket) = k.bucket(packet.proto, hash::place(&packet.tuple, config.table_seed)) else {
        return Verdict::PASS;
    };
    let found = bucket.find(&packet.tuple, Role::Forward);
    if let Some(found) = &found
        && client.may_be(found.head.client())
        && let Some((port, client_port, target)) = found.read()
    {
        let [id, generation, ..] = target.0;
        let over = found.head.is_over(packet.proto, now, &config.timeouts);
        if let Some(backend) = k.backend(id)
            && backend.serves(generation)
            && !(if packet.proto == TCP {
                // The same client may use the same port again, long after.
                packet.is_syn() && (over || !backend.is_active())
            } else {
                over || backend.is_silent()
            })
        {
            let head = hear(k, found, client, packet, states(packet));
            k.account(id, packet.len, false);
            // The task's side may never say that it has ended, or may have nothing to say for long.
            let renew = packet.ends()
                || found.head.client() != client
                || found.head.is_stale(packet.proto, now, &config.timeouts);
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
    if may_come(config, packet) {
        return Verdict::drop(Event::Moving);
    }
    k.begin(packet, Head::new(Role::Forward, client, marks, now))
}

/// Notes what a packet says of a forward flow. Its head now.
#[inline(always)]
pub(super) fn hear<K: Kernel>(
    k: &K,
    found: &Found<'_>,
    client: Client,
    packet: &Packet,
    states: u64,
) -> Head {
    let head = found.head.heard(client, states, packet.proto, packet.now, &k.config().timeouts);
    if found.set(head)
        && head.has(Head::CLOSING)
        && head.has(Head::COUNTED)
        && !found.head.has(Head::CLOSING)
        && let Some((_, _, target)) = found.read()
    {
        k.more_active(target.0[0], -1);
    }
    head
}

/// Chooses a backend for a flow, remembers both, and sends its first packet on. `head` is what is known of the flow.
#[inline(always)]
pub fn begin<K: Kernel>(k: &K, packet: &mut Packet, head: Head) -> Verdict {
    // What is not remembered goes where its hash leads, each packet anew.
    if packet.frontend.has(Frontend::LEAST) && !has_room(k, packet) {
        packet.frontend.flags &= !Frontend::LEAST;
    }
    let id = k.pick(packet);
    let Some(backend) = k.backend(id).filter(|backend| backend.is_active()) else {
        count(k, packet, Event::NoBackend);
        return Verdict::refuse(Refusal::Closed);
    };
    let port = packet.frontend.target.or(packet.tuple.dport());
    let head = Head(head.0 | terms(packet, head, backend));
    let mut client_port = NetPort::ANY;
    if head.has(Head::HERE) {
        let undone = translate(k, packet, head, backend, port, NetPort::ANY);
        if undone == 0 {
            return Verdict::drop(Event::NoRoute);
        }
        // A datagram of a flow that is known came by its forward entry.
        let begins = packet.proto != TCP || packet.is_syn();
        let changed = remember(k, packet, head.answered(undone), begins);
        if changed == NO_PORT {
            return Verdict::drop(Event::PortsExhausted);
        }
        client_port = NetPort(changed as u16);
        packet.sent.ports = Tuple::join(client_port.or(packet.tuple.sport()), port);
    }
    // Field by field: a whole one would lie on the stack first.
    let flow = &mut packet.draft;
    (flow.tuple, flow.port, flow.client_port, flow.head) = (packet.tuple, port, client_port, head.0);
    flow.addr = Flow::target(id, backend.generation, packet.frontend.id);
    if packet.last == 0 {
        count(k, packet, first(packet));
    }
    if note(k, packet) && head.has(Head::COUNTED) {
        k.more_active(id, 1);
    }
    k.account(id, packet.len, true);
    if backend.peer == 0 && packet.is_syn() {
        k.sign(packet, Seen::Given, 0);
    }
    if head.has(Head::HERE) {
        leave_for(k, packet, backend)
    } else {
        leave_as_it_is(packet, head, backend, port)
    }
}

/// Whether a flow can be remembered.
#[inline(always)]
fn has_room<K: Kernel>(k: &K, packet: &Packet) -> bool {
    let config = k.config();
    k.bucket(packet.proto, hash::place(&packet.tuple, config.table_seed)).is_some_and(|bucket| {
        bucket.find(&packet.tuple, Role::Forward).is_some()
            || bucket.has_room(packet.proto, packet.now, &config.timeouts)
    })
}

/// What a flow keeps of its service's wishes while it lasts, as marks of its head.
#[inline(always)]
fn terms(packet: &Packet, head: Head, backend: &Backend) -> u64 {
    let frontend = &packet.frontend;
    let mut marks = Head::idle_mark(frontend.idle());
    if backend.peer == 0 || packet.tuple.src.is_loopback() {
        marks |= Head::HERE;
    } else if !head.has(Head::HERE) && head.client().is_outside() {
        if frontend.has(Frontend::DSR) {
            marks |= Head::DIRECT;
        }
        if frontend.has(Frontend::SNAT) {
            marks |= Head::SNAT | Head::HERE;
        }
    }
    if frontend.has(Frontend::LEAST) { marks | Head::COUNTED } else { marks }
}

/// What the first packet of a flow that comes by here counts as.
#[inline(always)]
const fn first(packet: &Packet) -> Event {
    if packet.proto == TCP && !packet.is_syn() { Event::MidFlow } else { Event::NewFlow }
}

/// Remembers the drafted flow, if there is room, in the place of an old one with the same tuple. Whether it is.
#[inline(always)]
fn note<K: Kernel>(k: &K, packet: &Packet) -> bool {
    let (config, flow) = (k.config(), &packet.draft);
    let Some(bucket) = k.bucket(packet.proto, hash::place(&flow.tuple, config.table_seed)) else {
        return false;
    };
    match bucket.find(&flow.tuple, Role::Forward) {
        // Lost only to somebody who writes the same entry.
        Some(found) => found.replace(flow),
        None => replies::insert(k, bucket, flow, packet.proto, packet.now),
    }
}

/// Who gets a new flow; [`NO_BACKEND`]: nobody is there.
#[inline(always)]
pub fn pick<K: Kernel>(k: &K, packet: &Packet) -> u32 {
    let (tuple, frontend, config) = (&packet.tuple, &packet.frontend, k.config());
    if frontend.backends == 0 {
        return NO_BACKEND;
    }
    let stays = frontend.affinity != 0;
    if stays {
        let id = known(k, packet);
        if id != NO_BACKEND {
            return id;
        }
    }
    // Even where nodes need not agree it is a hash and no random number: a flow that was forgotten is balanced
    // as it was before. They also agree about clients whose flows stay together.
    let (sport, dport, proto) =
        if stays { (NetPort::ANY, NetPort::ANY, 0) } else { (tuple.sport(), tuple.dport(), packet.proto) };
    let alike = stays || frontend.has(Frontend::HASHED);
    let seed = if alike { config.mesh_seed } else { config.node_seed };
    let hash = hash::slot(&tuple.src, sport, dport, proto, seed);
    let mut id = packet.except;
    if frontend.has(Frontend::LEAST) {
        id = least(k, frontend, hash, id);
    }
    if id == packet.except {
        id = in_slots(k, frontend, hash, id);
    }
    if stays {
        remember_client(k, packet, id);
    }
    id
}

#[inline(always)]
const fn affinity_key(packet: &Packet) -> AffinityKey {
    AffinityKey { client: packet.tuple.src, frontend: packet.frontend.id }
}

/// Who gets the flows of a client, if that is known.
#[inline(always)]
fn known<K: Kernel>(k: &K, packet: &Packet) -> u32 {
    let key = affinity_key(packet);
    if let Some(AffinityValue { backend: id, generation, seen }) = k.affinity(&key)
        // Another CPU may be ahead of this one's time.
        && packet.now.wrapping_sub(seen).cast_signed() <= packet.frontend.affinity.cast_signed()
        && id != packet.except
        && k.backend(id).is_some_and(|backend| backend.serves(generation) && backend.is_active())
    {
        k.remember(&key, &AffinityValue { backend: id, generation, seen: packet.now });
        return id;
    }
    NO_BACKEND
}

#[inline(always)]
fn remember_client<K: Kernel>(k: &K, packet: &Packet, id: u32) {
    if let Some(backend) = k.backend(id) {
        let value = AffinityValue { backend: id, generation: backend.generation, seen: packet.now };
        k.remember(&affinity_key(packet), &value);
    }
}

/// The backend in a slot, or in one of some others; that which is not wanted only if they have no other.
#[inline(always)]
pub(crate) fn in_slots<K: Kernel>(k: &K, frontend: &Frontend, hash: u32, except: u32) -> u32 {
    let mut slot = hash;
    let mut left = if except == NO_BACKEND { TRIES } else { OTHER_TRIES };
    while left > 0 {
        let id = k.slot(frontend.slots.wrapping_add(slot & frontend.mask));
        if id != except && k.backend(id).is_some_and(Backend::is_active) {
            return id;
        }
        slot = slot.wrapping_mul(FACTOR).wrapping_add(1);
        left -= 1;
    }
    except
}

/// Of the backends in some slots that which has the fewest flows for its weight; that which is not wanted if they have no
/// other. To look at a few at random is nearly as good as to look at all (Mitzenmacher, "The Power of Two Choices in
/// Randomized Load Balancing", 2001).
#[inline(always)]
fn least<K: Kernel>(k: &K, frontend: &Frontend, hash: u32, except: u32) -> u32 {
    let (mut best, mut fewest) = (except, u64::MAX);
    let mut slot = hash;
    let mut left = TRIES;
    while left > 0 {
        let id = k.slot(frontend.slots.wrapping_add(slot & frontend.mask));
        if id != except
            && let Some(backend) = k.backend(id)
            && backend.is_active()
        {
            let flows = ((k.active(id).max(0) as u64) << 16) / u64::from(backend.weight.max(1));
            if flows < fewest {
                (best, fewest) = (id, flows);
            }
        }
        slot = slot.rotate_right(8).wrapping_add(1);
        left -= 1;
    }
    best
}

/// A packet of a known flow on its way to the backend: with the flow's head, the backend's port and the client's.
/// What is remembered for answers is renewed where that is asked for.
#[inline(always)]
fn forward<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    head: Head,
    backend: &Backend,
    (port, client_port): (NetPort, NetPort),
    renew: bool,
) -> Verdict {
    if !head.has(Head::HERE) {
        return leave_as_it_is(packet, head, backend, port);
    }
    let undone = translate(k, packet, head, backend, port, client_port);
    if undone == 0 {
        return Verdict::drop(Event::NoRoute);
    }
    if renew {
        replies::renew(k, packet, head.answered(undone), client_port);
    }
    leave_for(k, packet, backend)
}

/// To a backend, which is another node's to translate to.
#[inline(always)]
fn leave_as_it_is(packet: &mut Packet, head: Head, backend: &Backend, port: NetPort) -> Verdict {
    let terms = Terms::new(head.has(Head::DIRECT), packet.last != 0, head.idle());
    packet.hop = Hop::peer(backend.peer, Tag::Forward(port, terms), backend.mac);
    Verdict::SEND
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
    if packet.may_begin() && packet.last == 0 {
        // Should the task be gone there, its node sends it back.
        packet.hop.from = backend.mac;
    }
    Verdict::SEND
}

/// Gives the packet the addresses and ports that the backend is to see. The marks that undo it; 0: it cannot be.
#[inline(always)]
fn translate<K: Kernel>(
    k: &K,
    packet: &mut Packet,
    head: Head,
    backend: &Backend,
    port: NetPort,
    client_port: NetPort,
) -> u64 {
    let (src, marks) = client_of(k, &packet.tuple.src, head, backend);
    if marks == 0 {
        return 0;
    }
    packet.sent = Tuple::new(src, client_port.or(packet.tuple.sport()), backend.addr, port);
    marks
}

/// The address of a flow's client as the backend is to see it, and the marks that undo it; 0: it cannot be.
#[inline(always)]
pub(super) fn client_of<K: Kernel>(k: &K, own: &Addr16, head: Head, backend: &Backend) -> (Addr16, u64) {
    let client = head.client();
    let to_itself = client.place == Place::Task && client.via == backend.device;
    // It would not answer itself, and cannot answer 127.0.0.1.
    let mark = if to_itself {
        Head::SELF
    } else if own.is_loopback() {
        Head::LOOPBACK
    } else if head.has(Head::SNAT) {
        Head::SNAT
    } else {
        return (*own, Head::HERE);
    };
    match k.network(backend.vni).and_then(|network| network.beside(&backend.addr)) {
        Some(node) => (node, Head::HERE | mark),
        None => (Addr16::ANY_V6, 0),
    }
}
