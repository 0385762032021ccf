//! Keys and values of every map, byte for byte as the kernel stores them.
//!
//! Addresses are always 16 bytes, IPv4 in its IPv4-mapped form (`::ffff:a.b.c.d`), in network byte order; so are
//! ports. All other numbers are in the machine's own order. Maps compare keys byte by byte, padding included:
//! padding is a named field and zero.
//!
//! The layout is a promise to pinned maps: an agent that is upgraded finds the old one's. A change of any layout
//! here changes [`LAYOUT`], and with it the path under which maps are pinned.

mod addr;
mod backend;
mod config;
mod endpoint;
mod frontend;
#[cfg(feature = "user")]
mod pod;
mod record;
mod sign;
mod socket;

pub use addr::{Addr16, Mac, NetPort};
pub use backend::{Backend, BackendState, Peer, Stats};
pub use config::{Clock, Config, Named, Timeouts};
pub use endpoint::{Endpoint, MacKey, Network};
pub use frontend::{AffinityKey, AffinityValue, Frontend, FrontendKey, Published, Scope, SourceKey};
pub use record::Record;
pub use sign::{JUDGED, SERVED, Served, ServedKey, Sign, Signs};
pub use socket::{NetnsKey, SocketChoice, SocketKey, SocketOrigin};

/// Version of all layouts: part of the path of pinned maps.
pub const LAYOUT: u32 = 3;

/// Names of the maps.
pub mod map {
    /// Hash: [`FrontendKey`](super::FrontendKey) → [`Frontend`](super::Frontend).
    pub const FRONTENDS: &str = "FRONTENDS";
    /// Array of [`SlotLine`](super::SlotLine): backend ids; each frontend leads to a run of it. Mapped into the agent.
    pub const SLOTS: &str = "SLOTS";
    /// Array: backend id → [`Backend`](super::Backend). Mapped into the agent.
    pub const BACKENDS: &str = "BACKENDS";
    /// Array: number of a node → [`Peer`](super::Peer).
    pub const PEERS: &str = "PEERS";
    /// Hash: a node's underlay address → its number.
    pub const PEER_IDS: &str = "PEER_IDS";
    /// Hash: index of a task's device on this node → [`Endpoint`](super::Endpoint).
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Hash: [`MacKey`](super::MacKey) → [`Endpoint`](super::Endpoint).
    pub const MACS: &str = "MACS";
    /// Hash: VNI → [`Network`](super::Network).
    pub const NETWORKS: &str = "NETWORKS";
    /// Hash: addresses of this node → 1.
    pub const LOCALS: &str = "LOCALS";
    /// Array of `u64`: two bits for each port, [`Published`](super::Published).
    pub const PORTS: &str = "PORTS";
    /// Array of `u64`: a Bloom filter of VIPs.
    pub const VIP_BITS: &str = "VIP_BITS";
    /// Trie: [`SourceKey`](super::SourceKey) → 1.
    pub const SOURCES: &str = "SOURCES";
    /// LRU hash: [`AffinityKey`](super::AffinityKey) → [`AffinityValue`](super::AffinityValue).
    pub const AFFINITY: &str = "AFFINITY";
    /// Array of [`Bucket`](crate::flow::Bucket): flows of TCP.
    pub const FLOWS_TCP: &str = "FLOWS_TCP";
    /// Array of [`Bucket`](crate::flow::Bucket): flows of UDP.
    pub const FLOWS_UDP: &str = "FLOWS_UDP";
    /// LRU hash: [`FragmentKey`](crate::fragment::FragmentKey) → [`FragmentValue`](crate::fragment::FragmentValue).
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Array of `i64`: backend id → flows that are counted. Mapped into the agent.
    pub const ACTIVE: &str = "ACTIVE";
    /// Per-CPU array of `u64`, by [`Event`](crate::verdict::Event).
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array: backend id → [`Stats`](super::Stats).
    pub const STATS: &str = "STATS";
    /// Hash: [`NetnsKey`](super::NetnsKey) → index of the task's device, or 0 for the node's own namespace.
    pub const NETNS: &str = "NETNS";
    /// LRU hash: [`SocketKey`](super::SocketKey) → [`SocketOrigin`](super::SocketOrigin).
    pub const SOCK_REV: &str = "SOCK_REV";
    /// LRU hash: [`SocketKey`](super::SocketKey) → [`SocketChoice`](super::SocketChoice).
    pub const SOCK_FWD: &str = "SOCK_FWD";
    /// Ring of [`Record`](super::Record)s, each agent's own.
    pub const RECORDS: &str = "RECORDS";
    /// Array of one [`Standing`](crate::probe::Standing), each agent's own.
    pub const STANDING: &str = "STANDING";
    /// Hash: [`ServedKey`](super::ServedKey) → [`Served`](super::Served), each agent's own.
    pub const SERVED: &str = "SERVED";
    /// Array of [`Signs`](super::Signs), each agent's own. Mapped into it.
    pub const SIGNS: &str = "SIGNS";
    /// Array of one [`Config`](super::Config).
    pub const CONFIG: &str = "CONFIG";
}

/// A cache line of slots, each the id of a backend.
pub type SlotLine = [u32; SLOT_LINE as usize];
/// How many slots a line has; a table has at least so many.
pub const SLOT_LINE: u32 = 16;
/// Words of 64 bits in `PORTS`, for TCP and UDP: two bits for every port.
pub const PORT_WORDS: u32 = 2 * 2048;
/// Words of 64 bits of the Bloom filter of VIPs: 2^20 bits, so that 10,000 VIPs leave 99 % of them clear.
pub const VIP_WORDS: u32 = 16_384;
/// The backend id that means "none". Arrays start zeroed, so an unwritten slot is empty.
pub const NO_BACKEND: u32 = 0;
/// The mark of packets that a program hands to the node's own stack, already translated and let through.
pub const MARK: u32 = 0x4d00_0000;
/// The mark of a fragment that waits for the first one, plus how often it did.
pub const MARK_WAITS: u32 = MARK | 0x0001_0000;
/// The bits of the mark that are ours.
pub const MARK_MASK: u32 = 0xff00_0000;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMP6: u8 = 58;
