//! What becomes of a process's `connect()` and `sendmsg()`, before there is any packet.
//!
//! A socket is led to a backend straight away where the answers come back to it by themselves: a task's to a
//! task of its own network, the node's own to a task that it has a route to. Its packets then need no translation
//! at all. Everything else is left alone, and is balanced packet by packet as if this were not here: this only ever
//! saves work. So whatever is in doubt is left alone, too:
//!
//! - who is neither a task of the VIP's network nor the node (the packet path refuses him);
//! - a socket that is tied to an address or a device: its owner has said how it is to send;
//! - frontends that choose by what a socket does not have yet, a source address and port: Maglev, client affinity
//!   and lists of who is let in;
//! - a backend that is the asker itself, who is to see another address than his own;
//! - a socket that could not be remembered.
//!
//! Only a VIP that nobody is behind is refused here, at once.

use crate::abi::{
    Addr16, Backend, Frontend, FrontendKey, NO_BACKEND, NetPort, NetnsKey, Record, SocketChoice, SocketKey,
    SocketOrigin, TCP, UDP,
};
use crate::hash;
use crate::kernel::Kernel;
use crate::packet::Tuple;
use crate::pipeline::in_slots;
use crate::verdict::Event;

/// A socket that is about to send, or has received.
pub trait Socket {
    /// What it runs on.
    type Kernel: Kernel;
    /// The node.
    fn kernel(&self) -> &Self::Kernel;
    /// Its protocol.
    fn proto(&self) -> u8;
    /// Its cookie.
    fn cookie(&self) -> u64;
    /// The cookie of its network namespace.
    fn netns(&self) -> u64;
    /// Whether it is bound to an address or a device.
    fn is_tied(&self) -> bool;
    /// Any number.
    fn random(&self) -> u32;
    /// The device of a namespace in a network; 0: it is the node's own namespace.
    fn device(&self, key: &NetnsKey) -> Option<u32>;
    /// What a backend stands for.
    fn origin(&self, key: &SocketKey) -> Option<SocketOrigin>;
    /// Remembers it; false: it cannot be.
    fn remember(&self, key: &SocketKey, origin: &SocketOrigin) -> bool;
    /// Where its datagrams go.
    fn choice(&self, key: &SocketKey) -> Option<SocketChoice>;
    /// Remembers it, if there is room.
    fn choose(&self, key: &SocketKey, choice: &SocketChoice);
    /// Tells those who watch.
    fn tell(&self, record: &Record) {
        let _ = record;
    }
}

/// An address and a port, as the process knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address.
    pub addr: Addr16,
    /// The port.
    pub port: NetPort,
}

/// What is to be done, as a number: see [`crate::verdict::Verdict`] for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Outcome(pub u32);

impl Outcome {
    /// Nothing.
    pub const LEAVE: Self = Self(0);
    /// The place was exchanged for another.
    pub const REPLACED: Self = Self(1);
    /// Nobody is there.
    pub const REFUSE: Self = Self(2);
    /// Between steps: it may be led to a backend.
    const ADMIT: Self = Self(3);
}

/// A socket is connected to a place, by any protocol.
#[inline(always)]
pub fn connect<S: Socket>(socket: &S, place: &mut Place) -> Outcome {
    let mut asked = Asked::NOTHING;
    let outcome = find(socket, place, &mut asked);
    if outcome != Outcome::ADMIT {
        return outcome;
    }
    let id = in_slots(socket.kernel(), &asked.frontend, socket.random(), NO_BACKEND);
    let Some(backend) = usable(socket, &asked, id) else { return Outcome::LEAVE };
    let (key, origin) = notes(socket, place, &asked.frontend, id, backend);
    if !socket.remember(&key, &origin) {
        return Outcome::LEAVE;
    }
    began(socket, place, &asked, id);
    lead(place, &key)
}

/// A socket that is not connected sends a datagram to a place. All of one socket go to one backend while that serves.
#[inline(always)]
pub fn send<S: Socket>(socket: &S, place: &mut Place) -> Outcome {
    let mut asked = Asked::NOTHING;
    let outcome = find(socket, place, &mut asked);
    if outcome != Outcome::ADMIT {
        return outcome;
    }
    let k = socket.kernel();
    let now = k.now();
    let cookie = socket.cookie();
    let flow = SocketKey::new(cookie, place.addr, place.port);
    let known = socket.choice(&flow).filter(|choice| stays(k, choice, &asked.frontend, now));
    let id = match known {
        Some(choice) => choice.backend,
        None => {
            let hash = hash::slot(&place.addr, NetPort::ANY, place.port, UDP, cookie);
            in_slots(k, &asked.frontend, hash, NO_BACKEND)
        }
    };
    let Some(backend) = usable(socket, &asked, id) else { return Outcome::LEAVE };
    let (key, origin) = notes(socket, place, &asked.frontend, id, backend);
    match socket.origin(&key) {
        Some(there) if there == origin => {}
        // The backend can stand for one place only, and the other's answers may still be on their way.
        Some(there) if (there.addr, there.port) != (place.addr, place.port) => return Outcome::LEAVE,
        _ if socket.remember(&key, &origin) => {}
        _ => return Outcome::LEAVE,
    }
    // A word is written once a tick and not once a datagram.
    if known.is_none_or(|choice| choice.seen != now) {
        let choice = SocketChoice { backend: id, generation: origin.generation, seen: now, pad: 0 };
        socket.choose(&flow, &choice);
    }
    if known.is_none() {
        began(socket, place, &asked, id);
    }
    lead(place, &key)
}

/// What the process is told of where a datagram came from, or whom its socket is connected to.
#[inline(always)]
pub fn name<S: Socket>(socket: &S, place: &mut Place) -> Outcome {
    if socket.proto() != TCP && socket.proto() != UDP {
        return Outcome::LEAVE;
    }
    let key = SocketKey::new(socket.cookie(), place.addr, place.port);
    let Some(origin) = socket.origin(&key) else { return Outcome::LEAVE };
    *place = Place { addr: origin.addr, port: origin.port };
    Outcome::REPLACED
}

/// What a socket sends to.
#[derive(Clone, Copy)]
struct Asked {
    frontend: Frontend,
    /// That of the task that asks; 0: the node asks.
    device: u32,
}

impl Asked {
    const NOTHING: Self = Self { frontend: Frontend::NONE, device: 0 };
}

/// The cheapest questions first: nearly all sockets of a machine are none of ours.
#[inline(always)]
fn find<S: Socket>(socket: &S, place: &Place, asked: &mut Asked) -> Outcome {
    let k = socket.kernel();
    let proto = socket.proto();
    // People "connect" to port 0 to learn their own address.
    if (proto != TCP && proto != UDP) || place.port == NetPort::ANY {
        return Outcome::LEAVE;
    }
    if k.may_be_vip(&place.addr)
        && let Some(frontend) = k.frontend(&FrontendKey::vip(place.addr))
    {
        asked.frontend = frontend;
        return find_vip(socket, place, asked);
    }
    if k.published(proto, place.port).is_any() {
        find_published(socket, place, asked)
    } else {
        Outcome::LEAVE
    }
}

/// Tasks of the VIP's network, and the node.
#[inline(always)]
fn find_vip<S: Socket>(socket: &S, place: &Place, asked: &mut Asked) -> Outcome {
    let netns = socket.netns();
    let task = socket.device(&NetnsKey::new(netns, asked.frontend.vni));
    let Some(device) = task.or_else(|| socket.device(&NetnsKey::new(netns, NetnsKey::NODE))) else {
        return Outcome::LEAVE;
    };
    asked.device = device;
    if socket.is_tied() {
        return Outcome::LEAVE;
    }
    if asked.frontend.backends == 0 {
        socket.kernel().count(Event::NoBackend);
        tell(socket, place, asked, NO_BACKEND, Event::NoBackend);
        return Outcome::REFUSE;
    }
    if is_simple(&asked.frontend) { Outcome::ADMIT } else { Outcome::LEAVE }
}

/// The node itself, by one of its own addresses. Where nobody is behind the port, it is the node's as any other.
#[inline(always)]
fn find_published<S: Socket>(socket: &S, place: &Place, asked: &mut Asked) -> Outcome {
    let k = socket.kernel();
    if !(place.addr.is_loopback() || k.is_local(&place.addr))
        || socket.device(&NetnsKey::new(socket.netns(), NetnsKey::NODE)).is_none()
        || socket.is_tied()
    {
        return Outcome::LEAVE;
    }
    let frontend = k
        .frontend(&FrontendKey::published(place.addr, place.port, socket.proto()))
        .or_else(|| k.frontend(&FrontendKey::everywhere(&place.addr, place.port, socket.proto())));
    match frontend {
        Some(frontend) if frontend.backends != 0 && is_simple(&frontend) => {
            asked.frontend = frontend;
            Outcome::ADMIT
        }
        _ => Outcome::LEAVE,
    }
}

/// Whether its choice needs nothing of the client.
#[inline(always)]
pub const fn is_simple(frontend: &Frontend) -> bool {
    frontend.affinity == 0 && !frontend.has(Frontend::HASHED | Frontend::GUARDED | Frontend::LEAST)
}

/// Whether an earlier choice still holds: also while the backend drains, as for any flow.
#[inline(always)]
fn stays<K: Kernel>(k: &K, choice: &SocketChoice, frontend: &Frontend, now: u32) -> bool {
    // Another CPU may be ahead of this one's time.
    now.wrapping_sub(choice.seen).cast_signed() <= k.config().timeouts.of(UDP, 1, 0).cast_signed()
        && k.backend(choice.backend).is_some_and(|backend| {
            backend.serves(choice.generation) && !backend.is_silent() && backend.vni == frontend.vni
        })
}

/// A backend that answers the asker by itself.
#[inline(always)]
fn usable<'a, S: Socket>(socket: &'a S, asked: &Asked, id: u32) -> Option<&'a Backend> {
    if id == NO_BACKEND {
        return None;
    }
    let backend = socket.kernel().backend(id)?;
    let answers = if asked.device == 0 {
        // The node's own packets have its address in the network.
        let network = socket.kernel().network(asked.frontend.vni);
        network.is_some_and(|network| network.beside(&backend.addr).is_some())
    } else {
        // The device of a backend elsewhere is 0.
        backend.device != asked.device
    };
    answers.then_some(backend)
}

/// What is remembered of a socket that is led to a backend.
#[inline(always)]
fn notes<S: Socket>(
    socket: &S,
    place: &Place,
    frontend: &Frontend,
    id: u32,
    backend: &Backend,
) -> (SocketKey, SocketOrigin) {
    let key = SocketKey::new(socket.cookie(), backend.addr, frontend.target.or(place.port));
    let origin = SocketOrigin {
        netns: socket.netns(),
        addr: place.addr,
        backend: id,
        generation: backend.generation,
        port: place.port,
        pad: [0; 6],
    };
    (key, origin)
}

#[inline(always)]
fn began<S: Socket>(socket: &S, place: &Place, asked: &Asked, id: u32) {
    socket.kernel().count(Event::NewFlow);
    socket.kernel().account(id, 0, true);
    tell(socket, place, asked, id, Event::NewFlow);
}

/// Tells those who watch, if there are any. The client's port is not known yet.
#[inline(always)]
fn tell<S: Socket>(socket: &S, place: &Place, asked: &Asked, backend: u32, event: Event) {
    let k = socket.kernel();
    if k.config().watched == 0 {
        return;
    }
    let mut client = Addr16::ANY_V6;
    if asked.device != 0 {
        if let Some(task) = k.endpoint(asked.device) {
            client = task.beside(&place.addr);
        }
    } else if let Some(network) = k.network(asked.frontend.vni) {
        client = if place.addr.is_v4() { network.v4 } else { network.v6 };
    }
    let tuple = Tuple::new(client, NetPort::ANY, place.addr, place.port);
    socket.tell(&Record { tuple, backend, event: event as u32, proto: socket.proto(), pad: [0; 3] });
}

#[inline(always)]
fn lead(place: &mut Place, key: &SocketKey) -> Outcome {
    *place = Place { addr: key.addr, port: key.port };
    Outcome::REPLACED
}
