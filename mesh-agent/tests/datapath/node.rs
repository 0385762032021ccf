//! A node: the real programs over maps of their own, and beside them the pipeline over tables in memory. Whatever
//! is run is run in both, and has to come out the same.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::SocketAddr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use mesh_agent::dataplane::ebpf::{CLOCK, OBJECT, clock, now};
use mesh_ebpf::abi::{Addr16, Config, Mac, NetPort, SourceKey, Stats, map};
use mesh_ebpf::flow::{Bucket, Flow, Head, Role};
use mesh_ebpf::fragment::{FragmentKey, FragmentValue};
use mesh_ebpf::frame::Frame;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::mss;
use mesh_ebpf::packet::{Packet, Skip, Tuple};
use mesh_ebpf::pipeline;
use mesh_ebpf::reply::{self, Reply, Unreachable};
use mesh_ebpf::verdict::{Action, EVENTS, Event, Hop, Refusal, To};

use crate::frame::{self, ETH, TCP, UDP};
use crate::model::{Model, Tables, timeless};

const PASS: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;
/// The MAC of the host's end of every veth.
pub(crate) const HOST_END: Mac = [0x02, 0x4d, 0, 0, 0, 1];
const PACKET: usize = size_of::<Packet>();
/// Where `struct __sk_buff` has the device that a packet came in by (linux/bpf.h).
const IFINDEX: usize = 40;

/// By which kind of device a packet comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A task's veth.
    Task(u32),
    /// A device of the node's.
    Net(u32),
    /// The loopback device.
    Host,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) action: Action,
    pub(crate) bytes: Vec<u8>,
}

/// The node.
pub(crate) struct Node {
    ebpf: Ebpf,
    pub(crate) model: Model,
}

/// Has a SYN announce no more than fits.
fn clamp(bytes: &mut [u8], mtu: u32) {
    let Some(seen) = frame::read(bytes) else { return };
    let most = (mtu - if seen.src.is_ipv4() { 40 } else { 60 }) as u16;
    let len = usize::from(bytes[seen.l4 + 12] >> 4) * 4;
    let Some(said) = len.checked_sub(20).and_then(|len| bytes.get(seen.l4 + 20..)?.get(..len)) else {
        return;
    };
    let mut options = [0; mss::OPTIONS];
    options[..said.len()].copy_from_slice(said);
    if let Some(place) = mss::find(&options, said.len(), most) {
        bytes[seen.l4 + 20 + place..][..2].copy_from_slice(&most.to_be_bytes());
    }
}

impl Node {
    pub(crate) fn load(tables: Tables) -> Self {
        let buckets =
            [(map::FLOWS_TCP, tables.config.tcp_mask + 1), (map::FLOWS_UDP, tables.config.udp_mask + 1)];
        let mut loader = EbpfLoader::new();
        // Without any log the kernel refuses the BTF.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        for (name, entries) in [
            (map::FRONTENDS, 256),
            (map::SLOTS, 1024),
            (map::BACKENDS, 256),
            (map::PEERS, 16),
            (map::PEER_IDS, 16),
            (map::ENDPOINTS, 64),
            (map::MACS, 64),
            (map::NETWORKS, 16),
            (map::LOCALS, 16),
            (map::SOURCES, 64),
            (map::AFFINITY, 1024),
            (map::STATS, 256),
            (map::ACTIVE, 256),
        ]
        .into_iter()
        .chain(buckets)
        {
            loader.map_max_entries(name, entries);
        }
        let mut ebpf = loader.load(OBJECT).expect("the object loads: was it built, and is this root?");
        for name in ["mesh_from_task", "mesh_from_net", "mesh_from_host", "mesh_from_mesh", CLOCK] {
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).expect("a program").try_into().expect("a program of tc");
            program.load().unwrap_or_else(|error| panic!("the kernel refuses {name}: {error}"));
        }
        let mut node = Self { ebpf, model: Model::new(tables) };
        node.write();
        node
    }

    /// Writes other tables, and keeps the flows.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Tables)) {
        change(&mut self.model.tables);
        self.write();
    }

    fn write(&mut self) {
        let tables = self.model.tables.clone();
        let ebpf = &mut self.ebpf;
        let values = (0..).zip(tables.lines.iter().copied());
        set(ebpf, map::SLOTS, values);
        set(ebpf, map::BACKENDS, tables.backends.iter().map(|(id, backend)| (*id, *backend)));
        set(ebpf, map::PEERS, tables.peers.iter().map(|(number, peer)| (*number, *peer)));
        set(ebpf, map::PORTS, tables.ports());
        set(ebpf, map::VIP_BITS, tables.vips());
        put(ebpf, map::PEER_IDS, tables.peers.iter().map(|(number, peer)| (peer.addr, *number)));
        put(ebpf, map::FRONTENDS, tables.frontends.clone());
        put(ebpf, map::ENDPOINTS, tables.endpoints.clone());
        let macs = tables.endpoints.values().map(|endpoint| (endpoint.mac.into(), *endpoint));
        put::<mesh_ebpf::abi::MacKey, _>(ebpf, map::MACS, macs);
        put(ebpf, map::NETWORKS, tables.networks.clone());
        put(ebpf, map::LOCALS, tables.locals.iter().map(|addr| (*addr, 1_u32)));
        let mut sources: LpmTrie<&mut MapData, SourceKey, u32> = open(ebpf.map_mut(map::SOURCES));
        for (bits, key) in &tables.sources {
            sources.insert(&Key::new(*bits, *key), 1, 0).expect("room in SOURCES");
        }
        let counting = ebpf.program(CLOCK).expect("a program").try_into().expect("a program of tc");
        let clock = clock(counting).expect("the kernel runs programs for tests");
        set(ebpf, map::CONFIG, [(0, Config { clock, ..tables.config })]);
    }

    /// Runs a packet's program, and checks that the pipeline says the same.
    pub(crate) fn run(&mut self, hook: Hook, bytes: &[u8]) -> Out {
        self.model.now.set(now());
        let want = self.expect(hook, bytes);
        // Answers are rationed; not here.
        let quota =
            PerCpuValues::try_from(vec![[0_u64; 2]; aya::util::nr_cpus().expect("CPUs")]).expect("as many");
        let mut rate: PerCpuArray<&mut MapData, [u64; 2]> = open(self.ebpf.map_mut("RATE"));
        rate.set(0, quota, 0).expect("RATE is written");

        let (name, device) = match hook {
            Hook::Task(device) => ("mesh_from_task", device),
            Hook::Net(device) => ("mesh_from_net", device),
            Hook::Host => ("mesh_from_host", 1),
        };
        // The model forgets each packet's first fragment.
        if let Ok(packet) = Packet::parse(&Frame::new(bytes)) {
            type Fragments<'a> = HashMap<&'a mut MapData, FragmentKey, FragmentValue>;
            let mut fragments: Fragments<'_> = open(self.ebpf.map_mut(map::FRAGMENTS));
            let _ = fragments.remove(&FragmentKey::of(&packet, device));
        }
        let program: &SchedClassifier =
            self.ebpf.program(name).expect(name).try_into().expect("a program of tc");
        let mut out = vec![0; bytes.len() + 256];
        let mut context = [0; IFINDEX + 4];
        context[IFINDEX..].copy_from_slice(&device.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(bytes),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let done =
            program.test_run(options).unwrap_or_else(|error| panic!("{hook:?} {}: {error:?}", bytes.len()));
        out.truncate(done.data_size_out as usize);
        let got = (done.return_value.cast_signed(), out);
        let about = || format!("{hook:?} {:?} {bytes:02x?}: {:?}", frame::read(bytes), want.action);
        let back = match want.action {
            Action::Pass => PASS,
            Action::Drop(_) => SHOT,
            _ => REDIRECT,
        };
        assert_eq!(got.0, back, "{}", about());
        if back != SHOT {
            // Only who was right before is right after.
            if frame::is_right(bytes) {
                assert!(frame::is_right(&got.1), "checksums {}\n{:02x?}", about(), got.1);
            }
            assert_eq!(frame::without_sums(&got.1), frame::without_sums(&want.bytes), "{}", about());
        }
        if let Action::Send(to) = want.action {
            assert_eq!(self.hop(), to, "{}", about());
        }
        assert_eq!(self.events(), *self.model.events.borrow(), "{}", about());
        Out { action: want.action, bytes: got.1 }
    }

    /// The same of what comes out of the tunnel: in memory only, for the kernel gives no packet a tunnel that it is
    /// run on for a test. What the pipeline remembers is given to the programs.
    pub(crate) fn run_mesh(&mut self, peer: u32, vni: u32, bytes: &[u8]) -> Out {
        self.model.now.set(now());
        let macs = [0, 6].map(|at| bytes[at..at + 6].try_into().expect("six bytes"));
        let mut packet = match Packet::parse(&Frame::new(bytes)) {
            Ok(packet) => packet,
            Err(_) => return Out { action: Action::Pass, bytes: bytes.to_vec() },
        };
        let verdict = pipeline::from_mesh(&self.model, &mut packet, peer, vni, macs);
        let mut out = self.carry_out(bytes, &packet, verdict.action(&packet.hop));
        frame::sum_up(&mut out.bytes);
        let touched = [
            (packet.draft.tuple, Role::Reply),
            (packet.draft.tuple, Role::Forward),
            (packet.tuple, Role::Reply),
            (packet.tuple.reversed(), Role::Forward),
            (packet.sent.reversed(), Role::Forward),
        ];
        for (tuple, role) in touched {
            if let Some(flow) = self.model.flow(packet.proto, &tuple, role) {
                self.give(packet.proto, flow);
            }
        }
        let events = self.model.events.borrow().clone();
        self.set_events(&events);
        out
    }

    /// What the pipeline makes of a packet.
    fn expect(&self, hook: Hook, bytes: &[u8]) -> Out {
        let pass = Out { action: Action::Pass, bytes: bytes.to_vec() };
        let mut packet = match Packet::parse(&Frame::new(bytes)) {
            Ok(packet) => packet,
            Err(Skip::Other) => return pass,
            Err(Skip::Malformed) => {
                self.model.count(Event::Malformed);
                return pass;
            }
        };
        if packet.part == Packet::LATER {
            // Back to the end of the queue as it is, to wait for the first: an answer of sorts.
            self.model.count(Event::FragmentWaits);
            return Out { action: Action::Echo, bytes: bytes.to_vec() };
        }
        if packet.is_error() && packet.part == Packet::WHOLE {
            packet.quote(&Frame::new(bytes));
        }
        let origin = match hook {
            Hook::Task(device) | Hook::Net(device) => Hop::uplink(device),
            Hook::Host => Hop::stack(),
        };
        packet.hop = origin;
        let verdict = match hook {
            Hook::Task(device) => pipeline::from_task(&self.model, &mut packet, device),
            Hook::Net(device) => pipeline::from_net(&self.model, &mut packet, device),
            Hook::Host => pipeline::from_host(&self.model, &mut packet),
        };
        let mut action = verdict.action(&packet.hop);
        let tunnelled = matches!(action, Action::Send(To::Peer { .. }));
        if tunnelled && packet.whole != 0 && u32::from(packet.len) > self.model.tables.config.tunnel_mtu {
            self.model.count(Event::TooBig);
            action = Action::Refuse(Refusal::TooBig);
        }
        if matches!(action, Action::Refuse(_) | Action::Echo) {
            packet.hop = origin;
        }
        self.carry_out(bytes, &packet, action)
    }

    fn carry_out(&self, bytes: &[u8], packet: &Packet, action: Action) -> Out {
        let (action, mut bytes) = match action {
            Action::Pass => (action, bytes.to_vec()),
            Action::Drop(event) => {
                self.model.count(event);
                (action, Vec::new())
            }
            Action::Send(to) => {
                let mut bytes = frame::with_ends(bytes, end(&packet.sent, true), end(&packet.sent, false));
                self.address(&mut bytes, to, packet.hop.source(self.model.tables.config.mac));
                if matches!(to, To::Peer { .. }) && packet.announces() {
                    clamp(&mut bytes, self.model.tables.config.tunnel_mtu);
                }
                (action, bytes)
            }
            Action::Echo => (action, echo(bytes)),
            Action::Refuse(how) => match refuse(bytes, packet, how, self.model.tables.config.tunnel_mtu) {
                Some(bytes) => (action, bytes),
                None => {
                    self.model.count(Event::Unanswerable);
                    (Action::Drop(Event::Unanswerable), Vec::new())
                }
            },
        };
        if matches!(action, Action::Echo | Action::Refuse(_)) {
            match packet.hop.to() {
                To::Uplink { .. } | To::Task { .. } => {}
                to => self.address(&mut bytes, to, self.model.tables.config.mac),
            }
        }
        Out { action, bytes }
    }

    fn address(&self, bytes: &mut [u8], to: To, source: Mac) {
        let (to, from) = match to {
            To::Task { mac, .. } => (mac, HOST_END),
            To::Peer { mac, .. } => (mac, source),
            To::Uplink { .. } => return,
            To::Stack => ([0; 6], [0; 6]),
        };
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
    }

    /// Where the program that ran last sent its packet.
    fn hop(&self) -> To {
        let packets: PerCpuArray<&MapData, [u8; PACKET]> = open(self.ebpf.map("PACKET"));
        let all = packets.get(&0, 0).expect("PACKET is read");
        let cpu = nix::sched::sched_getcpu().expect("a CPU");
        let hop = &all[cpu][std::mem::offset_of!(Packet, hop)..];
        let word = |at: usize| u32::from_ne_bytes(hop[at..at + 4].try_into().expect("four bytes"));
        let mac = hop[12..18].try_into().expect("six bytes");
        Hop { kind: word(0), via: word(4), vni: word(8), mac, from: [0; 6] }.to()
    }

    /// How often each thing happened.
    pub(crate) fn events(&self) -> Vec<u64> {
        let events: PerCpuArray<&MapData, u64> = open(self.ebpf.map(map::EVENTS));
        (0..EVENTS).map(|event| events.get(&event, 0).expect("EVENTS is read").iter().sum()).collect()
    }

    pub(crate) fn counted(&self, event: Event) -> u64 {
        self.events()[event as usize]
    }

    fn set_events(&mut self, counts: &[u64]) {
        let mut events: PerCpuArray<&mut MapData, u64> = open(self.ebpf.map_mut(map::EVENTS));
        for (event, count) in (0..).zip(counts) {
            let mut values = vec![0; aya::util::nr_cpus().expect("CPUs")];
            values[0] = *count;
            events.set(event, values.try_into().expect("as many"), 0).expect("EVENTS is written");
        }
    }

    /// What a backend got.
    pub(crate) fn stats(&self, id: u32) -> Stats {
        let stats: PerCpuArray<&MapData, Stats> = open(self.ebpf.map(map::STATS));
        let all = stats.get(&id, 0).expect("STATS is read");
        all.iter().fold(Stats::default(), |sum, one| Stats {
            flows: sum.flows + one.flows,
            packets: sum.packets + one.packets,
            bytes: sum.bytes + one.bytes,
        })
    }

    /// All entries of the programs' table.
    pub(crate) fn flows(&self, proto: u8) -> Vec<Flow> {
        let buckets: Array<&MapData, Bucket> = open(self.ebpf.map(table(proto)));
        let all = buckets.iter().flat_map(|bucket| bucket.expect("flows are read").0);
        all.filter(|flow| Head(flow.head).role().is_some()).collect()
    }

    /// Checks that programs and pipeline remember and count the same.
    pub(crate) fn agree(&self) {
        for proto in [TCP, UDP] {
            for flow in self.flows(proto) {
                let role = if Head(flow.head).is(Role::Forward) { Role::Forward } else { Role::Reply };
                let there = self.model.flow(proto, &flow.tuple, role);
                let bare = |flow: Flow| Flow { head: timeless(flow.head), ..flow };
                assert_eq!(there.map(bare), Some(bare(flow)));
            }
        }
        for (id, stats) in &*self.model.stats.borrow() {
            assert_eq!(self.stats(*id), *stats, "backend {id}");
        }
    }

    /// Has the programs remember a flow.
    fn give(&mut self, proto: u8, flow: Flow) {
        let config = self.model.tables.config;
        let mask = if proto == TCP { config.tcp_mask } else { config.udp_mask };
        let place = mesh_ebpf::hash::place(&flow.tuple, config.table_seed) & mask;
        let mut buckets: Array<&mut MapData, Bucket> = open(self.ebpf.map_mut(table(proto)));
        let mut bucket = buckets.get(&place, 0).expect("a bucket");
        let way = bucket.0.iter_mut().find(|way| way.head == 0 || way.tuple == flow.tuple);
        *way.expect("room in a bucket") = flow;
        buckets.set(place, bucket, 0).expect("flows are written");
    }
}

fn end(tuple: &Tuple, src: bool) -> SocketAddr {
    let (addr, port): (Addr16, NetPort) =
        if src { (tuple.src, tuple.sport()) } else { (tuple.dst, tuple.dport()) };
    SocketAddr::new(addr.into(), port.number())
}

/// The answer to a ping.
fn echo(bytes: &[u8]) -> Vec<u8> {
    let seen = frame::read(bytes).expect("a ping");
    let mut bytes = frame::with_ends(bytes, seen.dst, seen.src);
    let from: [u8; 6] = bytes[..6].try_into().expect("six bytes");
    bytes.copy_within(6..12, 0);
    bytes[6..12].copy_from_slice(&from);
    bytes[if seen.src.is_ipv4() { ETH + 8 } else { ETH + 7 }] = 64;
    bytes[seen.l4] = if seen.src.is_ipv4() { 0 } else { 129 };
    bytes
}

/// The answer that the library writes.
fn refuse(bytes: &[u8], packet: &Packet, how: Refusal, mtu: u32) -> Option<Vec<u8>> {
    let mut out = Reply::new();
    let frame = Frame::new(bytes);
    let code = match how {
        Refusal::Closed => Unreachable::Port,
        Refusal::Unreachable => Unreachable::Host,
        Refusal::Prohibited | Refusal::TooBig => Unreachable::Prohibited,
    };
    let made = if how == Refusal::TooBig {
        reply::too_big(&mut out, &frame, packet, mtu as u16, packet.tuple.dst)
    } else if packet.proto == TCP {
        reply::reset(&mut out, &frame, packet)
    } else {
        reply::unreachable(&mut out, &frame, packet, code, packet.tuple.dst)
    };
    let all: Vec<u8> = out.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    made.then(|| all[Reply::BEFORE..Reply::BEFORE + out.len as usize].to_vec())
}

const fn table(proto: u8) -> &'static str {
    if proto == TCP { map::FLOWS_TCP } else { map::FLOWS_UDP }
}

/// A map that the object has, as what it is.
fn open<M: Sized, T: TryFrom<M, Error = MapError>>(map: Option<M>) -> T {
    let map = map.expect("a map of this name");
    map.try_into().unwrap_or_else(|error| panic!("a map is another than was thought: {error}"))
}

fn set<V: Pod>(ebpf: &mut Ebpf, name: &str, values: impl IntoIterator<Item = (u32, V)>) {
    let mut array: Array<&mut MapData, V> = open(ebpf.map_mut(name));
    for (index, value) in values {
        array.set(index, value, 0).unwrap_or_else(|error| panic!("{name}[{index}]: {error}"));
    }
}

/// Has a hash hold these entries and no others.
fn put<K: Pod + Hash + Ord, V: Pod>(ebpf: &mut Ebpf, name: &str, entries: impl IntoIterator<Item = (K, V)>) {
    let entries: BTreeMap<K, V> = entries.into_iter().collect();
    let mut hash: HashMap<&mut MapData, K, V> = open(ebpf.map_mut(name));
    let old: Vec<K> = hash.keys().collect::<Result<_, _>>().expect("keys are read");
    for key in old.iter().filter(|key| !entries.contains_key(key)) {
        hash.remove(key).expect("an entry is removed");
    }
    for (key, value) in entries {
        hash.insert(key, value, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
