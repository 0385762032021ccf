//! What becomes of a packet.

use crate::abi::Mac;
use crate::tunnel::Tag;

/// What a program does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
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
    /// Dropped: a protocol that no VIP speaks.
    Unsupported = "unsupported",
    /// A fragment was left to the node's kernel.
    Fragment = "fragment",
}

/// How many there are.
pub const EVENTS: u32 = Event::ALL.len() as u32;
