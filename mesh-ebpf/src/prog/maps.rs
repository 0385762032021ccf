//! The maps. Their names are in `mesh_ebpf::abi::map`, for the agent to find them by, and it decides how large
//! those are whose size is 1 here.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};
use mesh_ebpf::abi::{
    self, Addr16, AffinityKey, AffinityValue, Backend, Config, Endpoint, Frontend, FrontendKey, MacKey,
    NetnsKey, Network, PORT_WORDS, Peer, Served, ServedKey, Signs, SlotLine, SocketChoice, SocketKey,
    SocketOrigin, SourceKey, Stats, VIP_WORDS,
};
use mesh_ebpf::flow::Bucket;
use mesh_ebpf::fragment::{FragmentKey, FragmentValue};
use mesh_ebpf::packet::Packet;
use mesh_ebpf::probe::Standing;
use mesh_ebpf::reply::Reply;
use mesh_ebpf::verdict;

#[map]
pub(crate) static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static SLOTS: Array<SlotLine> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static BACKENDS: Array<Backend> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static PEERS: Array<Peer> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static PEER_IDS: HashMap<Addr16, u32> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static ENDPOINTS: HashMap<u32, Endpoint> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static MACS: HashMap<MacKey, Endpoint> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static NETWORKS: HashMap<u32, Network> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static LOCALS: HashMap<Addr16, u32> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, BPF_F_MMAPABLE);
#[map]
pub(crate) static VIP_BITS: Array<u64> = Array::with_max_entries(VIP_WORDS, BPF_F_MMAPABLE);
#[map]
pub(crate) static SOURCES: LpmTrie<SourceKey, u32> = LpmTrie::with_max_entries(1, 1);
#[map]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, AffinityValue> = LruHashMap::with_max_entries(1, 0);
#[map]
pub(crate) static FLOWS_TCP: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOWS_UDP: Array<Bucket> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static ACTIVE: Array<i64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static EVENTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(verdict::EVENTS, 0);
#[map]
pub(crate) static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static NETNS: HashMap<NetnsKey, u32> = HashMap::with_max_entries(1, 0);
#[map]
pub(crate) static SOCK_REV: LruHashMap<SocketKey, SocketOrigin> = LruHashMap::with_max_entries(1, 0);
#[map]
pub(crate) static SOCK_FWD: LruHashMap<SocketKey, SocketChoice> = LruHashMap::with_max_entries(1, 0);
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue> = LruHashMap::with_max_entries(8192, 0);
/// What those who watch are told.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
/// How much was told of each event in which moment.
#[map]
pub(crate) static TOLD: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(verdict::EVENTS, 0);
/// Which ports tasks are known to serve.
#[map]
pub(crate) static SERVED: HashMap<ServedKey, Served> = HashMap::with_max_entries(abi::SERVED, 0);
/// What tasks make of connections.
#[map]
pub(crate) static SIGNS: Array<Signs> = Array::with_max_entries(abi::JUDGED, BPF_F_MMAPABLE);
/// Where a program keeps the packet that it works on.
#[map]
pub(crate) static PACKET: PerCpuArray<Packet> = PerCpuArray::with_max_entries(1, 0);
/// What the agent says of its node.
#[map]
pub(crate) static STANDING: Array<Standing> = Array::with_max_entries(1, 0);
/// How many probes were answered in which moment.
#[map]
pub(crate) static PROBED: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);
/// Where a program writes an answer.
#[map]
pub(crate) static REPLY: PerCpuArray<Reply> = PerCpuArray::with_max_entries(1, 0);
/// How many answers were given in which moment.
#[map]
pub(crate) static RATE: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);
