//! What becomes of a packet.

use crate::abi::Mac;
use crate::tunnel::Tag;

/// What a program does with a packet, as a number; [`Verdict::action`] says it in full.
///
/// No enum with fields: where one of those is passed in memory, the compiler leaves the fields of other variants
/// unwritten, and the verifier refuses to copy what was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict(pub u32);

impl Verdict {
    /// See [`Action::Pass`].
    pub const PASS: Self = Self(0);
    /// See [`Action::Echo`].
    pub const ECHO: Self = Self(1);
    /// See [`Action::Send`]; where to is in [`crate::packet::Packet::hop`].
    pub const SEND: Self = Self(2);
    /// Between steps of the pipeline: a flow may begin.
    pub(crate) const ADMIT: Self = Self(3);
    /// It is lost, and was counted.
    pub const LOSE: Self = Self(4);
    /// A program has sent it to the end of a queue.
    pub const WAIT: Self = Self(5);
    const REFUSE: u32 = 0x100;
    const DROP: u32 = 0x200;

    /// See [`Action::Refuse`].
    #[inline(always)]
    pub const fn refuse(how: Refusal) -> Self {
        Self(Self::REFUSE | how as u32)
    }

    /// See [`Action::Drop`].
    #[inline(always)]
    pub const fn drop(why: Event) -> Self {
        Self(Self::DROP | why as u32)
    }

    /// Why it is dropped, if it is.
    #[inline(always)]
    pub const fn dropped(self) -> Option<u32> {
        if self.0 & Self::DROP != 0 { Some(self.0 & !Self::DROP) } else { None }
    }

    /// How it is refused, if it is.
    #[inline(always)]
    pub const fn refused(self) -> Option<Refusal> {
        if self.0 & Self::REFUSE == 0 {
            return None;
        }
        Some(match self.0 & !Self::REFUSE {
            0 => Refusal::Closed,
            1 => Refusal::Unreachable,
            2 => Refusal::Prohibited,
            _ => Refusal::TooBig,
        })
    }

    /// The verdict in full, on a packet with this next hop.
    pub fn action(self, hop: &Hop) -> Action {
        if let Some(how) = self.refused() {
            return Action::Refuse(how);
        }
        if let Some(why) = self.dropped() {
            return Action::Drop(Event::ALL[why as usize]);
        }
        match self {
            Self::ECHO => Action::Echo,
            Self::SEND => Action::Send(hop.to()),
            _ => Action::Pass,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it goes on as if we were not there.
    Pass,
    /// It is lost; somebody counts why.
    Drop(Event),
    /// Whoever sent it is told that it was refused.
    Refuse(Refusal),
    /// It is a ping, and is answered.
    Echo,
    /// It is given the addresses and ports in [`crate::packet::Packet::sent`] and sent on.
    Send(To),
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Into a task of this node.
    Task {
        /// The host's end of its veth.
        device: u32,
        /// The MAC of its own end.
        mac: Mac,
    },
    /// Through the tunnel.
    Peer {
        /// The node's number.
        peer: u32,
        /// What the tunnel says beside it.
        tag: Tag,
        /// The inner frame's destination.
        mac: Mac,
    },
    /// Out by a device, to whichever neighbour leads there; 0: by whichever device does, too.
    Uplink {
        /// The device's index.
        device: u32,
    },
    /// To a process of this node.
    Stack,
}

/// No MAC.
const NOBODY: Mac = [0; 6];

/// The same, flat: what is in a [`crate::packet::Packet`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hop {
    /// [`Hop::TASK`], [`Hop::PEER`], [`Hop::UPLINK`] or [`Hop::STACK`].
    pub kind: u32,
    /// A device's index, or a node's number.
    pub via: u32,
    /// The tunnel's key.
    pub vni: u32,
    /// The frame's destination.
    pub mac: Mac,
    /// Through the tunnel: the frame's source, by which its receiver knows who is to be there; zero: the node's own.
    pub from: Mac,
}

impl Hop {
    /// See [`To::Stack`].
    pub const STACK: u32 = 0;
    /// See [`To::Task`].
    pub const TASK: u32 = 1;
    /// See [`To::Peer`].
    pub const PEER: u32 = 2;
    /// See [`To::Uplink`].
    pub const UPLINK: u32 = 3;

    /// Into a task.
    #[inline(always)]
    pub const fn task(device: u32, mac: Mac) -> Self {
        Self { kind: Self::TASK, via: device, vni: 0, mac, from: NOBODY }
    }

    /// Through the tunnel.
    #[inline(always)]
    pub const fn peer(peer: u32, tag: Tag, mac: Mac) -> Self {
        Self { kind: Self::PEER, via: peer, vni: tag.vni(), mac, from: NOBODY }
    }

    /// Out by a device.
    #[inline(always)]
    pub const fn uplink(device: u32) -> Self {
        Self { kind: Self::UPLINK, via: device, vni: 0, mac: NOBODY, from: NOBODY }
    }

    /// To a process.
    pub const fn stack() -> Self {
        Self { kind: Self::STACK, via: 0, vni: 0, mac: NOBODY, from: NOBODY }
    }

    /// The frame's source, on a node with this one of its own.
    #[inline(always)]
    pub const fn source(&self, own: Mac) -> Mac {
        // All that are given out are locally administered: none begins with zero.
        if self.from[0] == 0 { own } else { self.from }
    }

    /// In full.
    pub const fn to(&self) -> To {
        match self.kind {
            Self::TASK => To::Task { device: self.via, mac: self.mac },
            Self::PEER => To::Peer { peer: self.via, tag: Tag::of(self.vni), mac: self.mac },
            Self::UPLINK => To::Uplink { device: self.via },
            _ => To::Stack,
        }
    }
}

/// How a refusal is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// Nobody is there: RST, or "port unreachable".
    Closed,
    /// Nobody is there at all, and it was a ping: "host unreachable".
    Unreachable,
    /// It is not allowed: RST, or "administratively prohibited".
    Prohibited,
    /// It does not fit into the tunnel: "fragmentation needed", or "packet too big".
    TooBig,
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// What is counted beside flows. Index of `EVENTS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Event { $($(#[$doc])* $name),+ }

        impl Event {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word that stands for it in listings and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }
        }
    };
}

events! {
    /// A new flow found a backend.
    NewFlow = "new_flow",
    /// A flow was refused, because nobody was behind its frontend.
    NoBackend = "no_backend",
    /// A flow was reset, because its backend had gone.
    BackendGone = "backend_gone",
    /// A flow was refused, because its sender is not in the network, or not allowed in.
    Prohibited = "prohibited",
    /// A ping of a VIP was answered.
    Ping = "ping",
    /// A flow is not remembered, because its bucket was full of established ones.
    TableFull = "table_full",
    /// An opening or closing flow gave way to a new one.
    Evicted = "evicted",
    /// A flow got another source port, because two met in one tuple.
    PortChanged = "port_changed",
    /// Two flows met in one tuple, and no port was free.
    PortsExhausted = "ports_exhausted",
    /// A TCP segment without a known flow was balanced as its SYN would have been.
    MidFlow = "mid_flow",
    /// Dropped: the headers contradict themselves.
    Malformed = "malformed",
    /// Dropped: tunnelled by nobody who is a node.
    Spoofed = "spoofed",
    /// Dropped: its next hop is not known.
    NoRoute = "no_route",
    /// Dropped: a refusal that would have been one too many.
    RateLimited = "rate_limited",
    /// Dropped: nobody is told of what cannot be answered.
    Unanswerable = "unanswerable",
    /// Dropped: a protocol that no VIP speaks.
    Unsupported = "unsupported",
    /// A packet did not fit into the tunnel, and its sender was told so.
    TooBig = "too_big",
    /// A fragment that no first one was seen of was left to the node's kernel.
    Fragment = "fragment",
    /// A fragment overtook the first one, and waited.
    FragmentWaits = "fragment_waits",
    /// What began a flow went back to the node that it came in by, because its task had just left.
    Returned = "returned",
    /// Dropped, to come again: its flow is on the way here from other maps.
    Moving = "moving",
}

/// How many there are.
pub const EVENTS: u32 = Event::ALL.len() as u32;
