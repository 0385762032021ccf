//! Steps carried out on maps in memory, looked at after each one, as a program might.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::model::{Affinity, Balancing, NodeId, Protocol, TaskAddress, TaskId, Vni};
use mesh_core::plan::{self, Family, Pool, PortGate};
use mesh_ebpf::abi::{BackendState, NetPort, SLOT_LINE};
use proptest::prelude::*;

use super::*;

const SIZES: Sizes = Sizes { backends: 64, slots: 12, frontends: 64, peers: 8 };
const NET: Vni = Vni(4096);

/// The maps.
#[derive(Debug, Clone, Default)]
struct Kernel {
    frontends: BTreeMap<FrontendKey, Frontend>,
    slots: BTreeMap<u32, SlotLine>,
    backends: BTreeMap<u32, Backend>,
    peers: BTreeMap<u32, Peer>,
    peer_ids: BTreeMap<Addr16, u32>,
    networks: BTreeMap<u32, Network>,
    endpoints: BTreeMap<u32, Endpoint>,
    macs: BTreeMap<MacKey, Endpoint>,
    locals: BTreeSet<Addr16>,
    sources: BTreeSet<(u32, SourceKey)>,
    ports: BTreeMap<u32, u64>,
}

impl Kernel {
    fn carry_out(&mut self, step: &Step) {
        fn put<K: Ord + Copy, V: Copy>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
            match value {
                Some(value) => _ = map.insert(key, value),
                None => _ = map.remove(&key),
            }
        }
        match step.clone() {
            Step::Peer(number, peer) => _ = self.peers.insert(number, peer),
            Step::PeerId(addr, number) => put(&mut self.peer_ids, addr, number),
            Step::Network(vni, network) => put(&mut self.networks, vni, network),
            Step::Endpoint(device, endpoint) => put(&mut self.endpoints, device, endpoint),
            Step::Mac(mac, endpoint) => put(&mut self.macs, mac, endpoint),
            Step::Local(addr, true) => _ = self.locals.insert(addr),
            Step::Local(addr, false) => _ = self.locals.remove(&addr),
            Step::Backend(id, backend) => _ = self.backends.insert(id, backend),
            Step::Slots(start, lines) => {
                for (line, at) in lines.into_iter().zip(start / SLOT_LINE..) {
                    self.slots.insert(at, line);
                }
            }
            Step::Source(bits, key, true) => _ = self.sources.insert((bits, key)),
            Step::Source(bits, key, false) => _ = self.sources.remove(&(bits, key)),
            Step::Frontend(key, frontend) => put(&mut self.frontends, key, frontend),
            Step::PortWord(index, word) => _ = self.ports.insert(index, word),
            Step::VipWord(..) => {}
        }
    }

    /// The backends in a frontend's slots.
    fn behind(&self, frontend: &Frontend) -> BTreeSet<u32> {
        let lines = frontend.slots / SLOT_LINE..=(frontend.slots + frontend.mask) / SLOT_LINE;
        lines.flat_map(|line| self.slots[&line]).filter(|id| *id != 0).collect()
    }

    /// What holds at every moment: whoever has backends finds one that lives.
    fn check(&self) {
        for (key, frontend) in &self.frontends {
            if frontend.backends == 0 {
                continue;
            }
            let live = self.behind(frontend).into_iter().filter(|id| self.backends[id].is_active()).count();
            assert!(live > 0, "{key:?} leads nowhere");
        }
    }

    /// What another agent finds.
    fn found(&self) -> Found {
        fn all<K: Copy, V: Copy>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
            map.iter().map(|(key, value)| (*key, *value)).collect()
        }
        Found {
            backends: all(&self.backends),
            peers: all(&self.peers).into_iter().filter(|(_, peer)| *peer != Peer::default()).collect(),
            frontends: all(&self.frontends),
            sources: self.sources.iter().copied().collect(),
            peer_ids: self.peer_ids.keys().copied().collect(),
            networks: all(&self.networks),
            endpoints: all(&self.endpoints),
            macs: all(&self.macs),
            locals: self.locals.iter().copied().collect(),
        }
    }
}

/// Which of 6 tasks run, and which of those each of 3 services has in its balance.
#[derive(Debug, Clone)]
struct Wanted {
    running: [bool; 6],
    services: [Option<[bool; 6]>; 3],
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (any::<[bool; 6]>(), any::<[Option<[bool; 6]>; 3]>())
        .prop_map(|(running, services)| Wanted { running, services })
}

fn address(task: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, 10 + task as u8])
}

impl Wanted {
    fn balance(&self) -> Balance {
        let peer = IpAddr::from([192, 0, 2, 2]);
        let mut balance =
            Balance { node: Some(IpAddr::from([192, 0, 2, 1])), peers: [peer].into(), ..Balance::default() };
        let running = (0..6).filter(|task| self.running[*task]);
        for task in running {
            let device = format!("mesh{task:011}");
            let peer = (task % 2 == 0).then_some(peer);
            if peer.is_none() {
                let IpAddr::V4(v4) = address(task) else { unreachable!() };
                let gate = PortGate { vni: NET, addresses: TaskAddress { v4, v6: None } };
                balance.ports.insert(device.clone(), gate);
            }
            let site = Site { mac: plan::Mac::of_task(&device), device, peer, weight: 1 };
            balance.sites.insert((NET, address(task)), site);
        }
        for (number, members) in self.services.iter().enumerate() {
            let Some(members) = members else { continue };
            let backends: Vec<_> = (0..6)
                .filter(|task| members[*task] && self.running[*task])
                .map(|task| plan::Backend {
                    id: TaskId::new(format!("task{task}")),
                    task: format!("web.{task}"),
                    address: address(task),
                    node: NodeId::new("n"),
                    local: task % 2 == 1,
                    weight: 1,
                })
                .collect();
            let pool = Pool {
                service: "web".parse().unwrap(),
                vni: NET,
                target: Some(80),
                balancing: Balancing::Maglev,
                affinity: Affinity::None,
                return_path: Default::default(),
                idle: None,
                allow: vec!["198.51.100.0/24".parse().unwrap()],
                backends,
            };
            let at = plan::Frontend::Published {
                protocol: Protocol::Tcp,
                port: 8000 + number as u16,
                address: None,
                family: Family::V4,
            };
            balance.frontends.insert(at, pool);
        }
        balance
    }

    fn facts(&self) -> Facts {
        let devices = (0..6).filter(|task| self.running[*task] && task % 2 == 1);
        Facts {
            devices: devices.map(|task| (format!("mesh{task:011}"), 100 + task as u32)).collect(),
            addresses: [IpAddr::from([192, 0, 2, 1])].into(),
        }
    }

    /// Whether the maps say so.
    fn check(&self, kernel: &Kernel) {
        let id_of = |task: usize| {
            let mut found = kernel.backends.iter().filter(|(_, backend)| {
                backend.addr == address(task).into() && backend.state != BackendState::Gone as u8
            });
            (found.next().map(|(id, _)| *id), found.count())
        };
        for task in 0..6 {
            let (id, others) = id_of(task);
            assert_eq!((id.is_some(), others), (self.running[task], 0), "task {task}");
            let used = self.services.iter().flatten().any(|members| members[task]);
            if let Some(id) = id {
                assert_eq!(kernel.backends[&id].is_active(), used, "task {task}");
            }
        }
        let mut taken: Vec<(u32, u32)> = Vec::new();
        for (number, members) in self.services.iter().enumerate() {
            let port = 8000 + number as u16;
            let key = FrontendKey::published(Addr16::ANY_V4, NetPort::new(port), 6);
            let word = kernel.ports.get(&(u32::from(port) / 64)).copied().unwrap_or_default();
            assert_eq!(word >> (port % 64) & 1 != 0, members.is_some(), "the bit of port {port}");
            let Some(members) = members else {
                assert!(!kernel.frontends.contains_key(&key), "port {port}");
                continue;
            };
            let frontend = kernel.frontends[&key];
            let want: BTreeSet<u32> =
                (0..6).filter(|task| members[*task]).filter_map(|task| id_of(task).0).collect();
            assert_eq!(frontend.backends as usize, want.len());
            assert_eq!(kernel.behind(&frontend), want, "port {port}");
            assert!(kernel.sources.iter().any(|(_, key)| key.frontend == frontend.id));
            let run = (frontend.slots, frontend.slots + frontend.mask);
            assert!(taken.iter().all(|(first, last)| run.1 < *first || run.0 > *last), "slots are shared");
            taken.push(run);
        }
    }
}

proptest! {
    /// Whatever follows what, and also when another agent goes on from what it finds.
    #[test]
    fn the_maps_are_right_at_every_moment(
        history in prop::collection::vec((wanted(), any::<bool>()), 1..12),
    ) {
        let mut kernel = Kernel::default();
        let mut books = Books::open(SIZES, Found::default());
        for (wanted, restart) in history {
            if restart {
                books = Books::open(SIZES, kernel.found());
            }
            let mut problems = Problems::new();
            for step in books.steps(&wanted.balance(), &wanted.facts(), &mut problems) {
                kernel.carry_out(&step);
                kernel.check();
            }
            prop_assert!(problems.is_empty(), "{:?}", problems);
            wanted.check(&kernel);
            let again = books.steps(&wanted.balance(), &wanted.facts(), &mut problems);
            prop_assert!(again.is_empty(), "a second round changes nothing: {:?}", again);
        }
    }
}

/// A task that takes another one's address is another backend: flows of the former one end.
#[test]
fn an_id_that_is_given_again_has_another_generation() {
    let running = |task: usize| Wanted {
        running: std::array::from_fn(|at| at == task),
        services: [Some([true; 6]), None, None],
    };
    let mut books = Books::open(Sizes { backends: 2, ..SIZES }, Found::default());
    let mut kernel = Kernel::default();
    let mut round = |wanted: &Wanted| {
        for step in books.steps(&wanted.balance(), &wanted.facts(), &mut Problems::new()) {
            kernel.carry_out(&step);
        }
        kernel.backends[&1]
    };
    let first = round(&running(1));
    let none = Wanted { running: [false; 6], ..running(1) };
    assert_eq!(round(&none).state, BackendState::Gone as u8);
    let second = round(&running(3));
    assert_eq!((first.addr, second.addr), (address(1).into(), address(3).into()));
    assert!(second.generation > first.generation);
}

/// What there is no room for is said, and harms nothing else.
#[test]
fn what_does_not_fit_is_a_problem_of_its_own() {
    let all = Wanted { running: [true; 6], services: [Some([true; 6]), None, None] };
    let mut books = Books::open(Sizes { backends: 4, ..SIZES }, Found::default());
    let mut problems = Problems::new();
    let mut kernel = Kernel::default();
    for step in books.steps(&all.balance(), &all.facts(), &mut problems) {
        kernel.carry_out(&step);
        kernel.check();
    }
    assert_eq!(problems.len(), 3);
    let frontend = kernel.frontends.values().next().unwrap();
    assert_eq!((frontend.backends, kernel.behind(frontend).len()), (3, 3));
}

/// Whatever somebody did to the maps, the next agent, and each sweep, puts it right.
#[test]
fn what_was_damaged_is_repaired() {
    let wanted = Wanted { running: [true; 6], services: [Some([true; 6]), Some([true; 6]), None] };
    let mut kernel = Kernel::default();
    let round = |kernel: &mut Kernel| {
        let mut books = Books::open(SIZES, kernel.found());
        for step in books.steps(&wanted.balance(), &wanted.facts(), &mut Problems::new()) {
            kernel.carry_out(&step);
        }
        wanted.check(kernel);
    };
    round(&mut kernel);
    let whole = kernel.clone();
    kernel.ports.values_mut().for_each(|word| *word = 0);
    kernel.slots.values_mut().for_each(|line| line.fill(0));
    round(&mut kernel);
    kernel.frontends.pop_first();
    kernel.backends.get_mut(&1).unwrap().state = BackendState::Gone as u8;
    kernel.endpoints.clear();
    kernel.sources.clear();
    round(&mut kernel);
    assert_eq!(kernel.endpoints, whole.endpoints);
}
