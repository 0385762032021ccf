//! Steps carried out on maps in memory, looked at after each one, as a program might.

mod kernel;

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::model::{Affinity, Balancing, NodeId, Protocol, TaskAddress, TaskId, Vni};
use mesh_core::plan::{self, Family, Pool, PortGate};
use mesh_ebpf::abi::{BackendState, NetPort, Published, SLOT_LINE, TCP};
use proptest::prelude::*;

use self::kernel::Kernel;
use super::*;

const SIZES: Sizes = Sizes { backends: 64, slots: 12, frontends: 64, peers: 8 };
const NET: Vni = Vni(4096);
/// All nodes answer.
const HEARD: [bool; 6] = [false; 6];

/// Which of 6 tasks run, and which of those each of 3 services has in its balance.
#[derive(Debug, Clone)]
struct Wanted {
    running: [bool; 6],
    services: [Option<[bool; 6]>; 3],
    /// Whose nodes do not answer.
    silent: [bool; 6],
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (any::<[bool; 6]>(), any::<[Option<[bool; 6]>; 3]>(), any::<[bool; 2]>(), any::<[bool; 6]>()).prop_map(
        |(running, mut services, alike, silent)| {
            // Those that are alike share a table.
            for (number, alike) in alike.into_iter().enumerate() {
                if alike {
                    services[number + 1] = services[0];
                }
            }
            Wanted { running, services, silent }
        },
    )
}

fn frontend_key(service: usize) -> FrontendKey {
    FrontendKey::published(Addr16::ANY_V4, NetPort::new(8000 + service as u16), 6)
}

/// Where a connection to a service leads, as its client knows it.
fn connection(service: usize) -> (Addr16, NetPort) {
    (IpAddr::from([192, 0, 2, 1]).into(), NetPort::new(8000 + service as u16))
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
            let site = Site {
                mac: plan::Mac::of_task(&device),
                device: device.into(),
                peer,
                weight: 1,
                silent: self.silent[task],
            };
            balance.sites.insert((NET, address(task)), site.into());
        }
        for (number, members) in self.services.iter().enumerate() {
            let Some(members) = members else { continue };
            let backends: Vec<_> = (0..6)
                .filter(|task| members[*task] && self.running[*task])
                .map(|task| plan::Backend {
                    id: TaskId::new(format!("task{task}")),
                    slot: task as u32,
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
                backends: backends.into(),
            };
            let at = plan::Frontend::Published {
                protocol: Protocol::Tcp,
                port: 8000 + number as u16,
                address: None,
                family: Family::V4,
            };
            balance.frontends.insert(at, pool.into());
        }
        balance
    }

    fn facts(&self) -> Facts {
        let devices = (0..6).filter(|task| self.running[*task] && task % 2 == 1);
        Facts {
            ports: BTreeSet::new(),
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
                let backend = &kernel.backends[&id];
                assert_eq!(backend.is_active(), used, "task {task}");
                assert_eq!(backend.is_silent(), self.silent[task] && !used, "task {task}");
            }
        }
        let mut taken: BTreeMap<u32, (u32, BTreeSet<u32>)> = BTreeMap::new();
        for (number, members) in self.services.iter().enumerate() {
            let (key, port) = (frontend_key(number), 8000 + number as u16);
            let known = members.is_some() || kernel.running.contains(&connection(number));
            let bits = if known { Published::EVERYWHERE.0 } else { 0 };
            assert_eq!(kernel.bits(port), bits, "the bits of port {port}");
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
            if want.is_empty() {
                continue;
            }
            let (first, last) = (frontend.slots, frontend.slots + frontend.mask);
            for (other, (end, behind)) in &taken {
                assert!(last < *other || first > *end || (first, last) == (*other, *end), "tables overlap");
                assert_eq!(first == *other, *behind == want, "who leads to the same shares a table");
            }
            taken.insert(first, (last, want));
        }
    }

    /// Whether each frontend leads to nobody but those that it led to before this, or is to lead to.
    fn check_on_the_way(&self, before: &Self, kernel: &Kernel) {
        kernel.check();
        for number in 0..3 {
            let Some(frontend) = kernel.frontends.get(&frontend_key(number)) else { continue };
            for id in kernel.behind(frontend) {
                let is_its = |wanted: &Self| {
                    let members = wanted.services[number].unwrap_or_default();
                    (0..6).any(|task| members[task] && kernel.backends[&id].addr == address(task).into())
                };
                assert!(is_its(before) || is_its(self), "service {number} leads to another's backend");
            }
        }
    }
}

proptest! {
    /// Whatever follows what, and also when another agent goes on from what it finds.
    #[test]
    fn the_maps_are_right_at_every_moment(
        history in prop::collection::vec((wanted(), any::<bool>(), any::<[bool; 3]>()), 1..12),
    ) {
        let mut kernel = Kernel::default();
        let mut books = Books::open(SIZES, Found::default());
        let mut before = Wanted { running: [false; 6], services: [None; 3], silent: HEARD };
        for (wanted, restart, ends) in history {
            if restart {
                books = Books::open(SIZES, kernel.found());
            }
            let mut problems = Problems::new();
            let steps = books.steps(&wanted.balance(), &wanted.facts(), &mut problems);
            let running = kernel.running.clone();
            kernel.round(&mut books, &steps, |kernel| {
                wanted.check_on_the_way(&before, kernel);
                assert!(running.iter().all(|(_, port)| kernel.bits(port.number()) != 0), "none is cut");
            });
            prop_assert!(problems.is_empty(), "{:?}", problems);
            wanted.check(&kernel);
            let again = books.steps(&wanted.balance(), &wanted.facts(), &mut problems);
            prop_assert!(again.is_empty(), "a second round changes nothing: {:?}", again);
            // Some connections end, which the next sweep finds out, and where there are services some begin.
            for (service, ends) in ends.into_iter().enumerate() {
                if ends {
                    kernel.running.remove(&connection(service));
                } else if wanted.services[service].is_some() {
                    kernel.running.insert(connection(service));
                }
            }
            books = Books::open(SIZES, kernel.found());
            let steps = books.steps(&wanted.balance(), &wanted.facts(), &mut problems);
            kernel.round(&mut books, &steps, |_| {});
            wanted.check(&kernel);
            before = wanted;
        }
        let mut fresh = Kernel::default();
        for step in Books::open(SIZES, Found::default()).steps(&before.balance(), &before.facts(), &mut Problems::new()) {
            fresh.carry_out(&step);
        }
        prop_assert_eq!(kernel.meaning(), fresh.meaning(), "the way does not matter");
    }
}

/// Programs look for the flow of a packet only where the filters let it by. Connections by a VIP are found by their port then.
#[test]
fn connections_go_on_when_their_frontend_has_gone() {
    let address = IpAddr::from([10, 9, 0, 2]);
    let wanted = Wanted { running: [true; 6], services: [Some([true; 6]), None, None], silent: HEARD };
    let mut all = wanted.balance();
    let pool = Arc::clone(all.frontends.values().next().unwrap());
    all.frontends.insert(plan::Frontend::Vip { vni: NET, address }, pool);
    let none = Balance { frontends: SharedMap::default(), ..all.clone() };
    let (mut kernel, mut books) = (Kernel::default(), Books::open(SIZES, Found::default()));
    let round = |kernel: &mut Kernel, books: &mut Books, want: &Balance| {
        let steps = books.steps(want, &wanted.facts(), &mut Problems::new());
        kernel.round(books, &steps, |_| {});
        steps.is_empty()
    };
    round(&mut kernel, &mut books, &all);
    kernel.running = [connection(0), (address.into(), NetPort::new(443))].into();
    assert!(!kernel.knows_no_vips() && kernel.bits(443) == 0);
    round(&mut kernel, &mut books, &none);
    assert!(kernel.frontends.is_empty(), "nothing new comes in");
    assert!(kernel.bits(8000) != 0 && kernel.bits(443) != 0 && kernel.knows_no_vips());
    assert_eq!(*books.former(), kernel.running);
    books = Books::open(SIZES, kernel.found());
    assert!(round(&mut kernel, &mut books, &none), "another agent finds all as it should be");
    assert!(kernel.bits(8000) != 0 && kernel.bits(443) != 0);
    kernel.running.remove(&connection(0));
    assert!(kernel.found().lets_more_by(), "it asks which go on");
    books = Books::open(SIZES, kernel.found());
    round(&mut kernel, &mut books, &none);
    assert!(kernel.bits(8000) == 0 && kernel.bits(443) != 0, "what has ended leaves nothing");
    // Its own words are written, and its connections go on.
    round(&mut kernel, &mut books, &all);
    assert!(kernel.bits(443) == 0 && !kernel.knows_no_vips());
    kernel.running.clear();
    round(&mut kernel, &mut books, &none);
    assert!(!kernel.found().lets_more_by() && kernel.ports.values().all(|word| *word == 0));
}

/// However many services there are, and whether or not the plan shares what stayed with the one before.
#[test]
fn a_change_of_one_service_writes_nothing_of_others() {
    let members = |of: [usize; 2]| Some(std::array::from_fn(|task| of.contains(&task)));
    let before = Wanted {
        running: [true; 6],
        services: [members([0, 1]), members([2, 3]), members([4, 5])],
        silent: HEARD,
    };
    let mut after = before.clone();
    after.running[3] = false;
    let mut shared = before.balance();
    let gone = (NET, address(3));
    shared.sites.remove(&gone);
    for pool in shared.frontends.values_mut().filter(|pool| pool.backends.iter().any(|b| b.address == gone.1))
    {
        let left = pool.backends.iter().filter(|backend| backend.address != gone.1).cloned().collect();
        Arc::make_mut(pool).backends = left;
    }
    for then in [shared, after.balance()] {
        let mut kernel = Kernel::default();
        let mut books = Books::open(SIZES, Found::default());
        for step in books.steps(&before.balance(), &before.facts(), &mut Problems::new()) {
            kernel.carry_out(&step);
        }
        let facts = before.facts();
        let steps = books.steps(&then, &facts, &mut Problems::new());
        let others = [0, 2].map(|service| kernel.frontends[&frontend_key(service)]);
        for step in &steps {
            match step {
                Step::Slots(start, slots) => {
                    let end = start + slots.lines().len() as u32 * SLOT_LINE;
                    let apart = |other: &Frontend| *start > other.slots + other.mask || end <= other.slots;
                    assert!(others.iter().all(apart), "{step:?}");
                }
                Step::Frontend(key, Some(_)) => assert_eq!(*key, frontend_key(1)),
                Step::Backend(_, backend) => assert_eq!(backend.addr, address(3).into()),
                Step::Endpoint(103, None) | Step::Mac(_, None) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(steps.iter().any(|step| matches!(step, Step::Slots(..))));
    }
}

/// A network that was made anew has another number, and maybe the same addresses.
#[test]
fn a_vip_that_goes_to_another_network_stays() {
    let address = IpAddr::from([10, 0, 0, 2]);
    let wanted = Wanted { running: [true; 6], services: [Some([true; 6]), None, None], silent: HEARD };
    let balance = |vni| {
        let mut balance = wanted.balance();
        let pool = Arc::clone(balance.frontends.values().next().unwrap());
        balance.frontends.clear();
        balance.frontends.insert(plan::Frontend::Vip { vni, address }, pool);
        balance
    };
    let mut kernel = Kernel::default();
    let mut books = Books::open(SIZES, Found::default());
    for vni in [NET, Vni(5000)] {
        for step in books.steps(&balance(vni), &wanted.facts(), &mut Problems::new()) {
            kernel.carry_out(&step);
        }
        assert!(kernel.frontends.contains_key(&FrontendKey::vip(address.into())), "in {vni:?}");
    }
}

/// What does not fit is said in every round, and written as soon as there is room.
#[test]
fn what_there_is_no_room_for_is_asked_for_again() {
    let of = |tasks: usize| Wanted {
        silent: HEARD,
        running: [true; 6],
        services: [Some(std::array::from_fn(|task| task < tasks)), Some([true; 6]), None],
    };
    // Room for one table of six and one of two.
    let mut books = Books::open(Sizes { slots: 10, backends: 64, ..SIZES }, Found::default());
    let mut kernel = Kernel::default();
    let mut round = |wanted: &Wanted| {
        let mut problems = Problems::new();
        for step in books.steps(&wanted.balance(), &wanted.facts(), &mut problems) {
            kernel.carry_out(&step);
            kernel.check();
        }
        problems.len()
    };
    let mut wanted = of(2);
    wanted.services[1] = None;
    assert_eq!(round(&wanted), 0);
    let both = of(2);
    assert_eq!((round(&both), round(&both)), (1, 1), "it is said in every round");
    wanted.services = [None, both.services[1], None];
    round(&wanted);
    assert_eq!(round(&wanted), 0, "in the round after the other has gone there is room");
}

/// A task that takes another one's address is another backend: flows of the former one end.
#[test]
fn an_id_that_is_given_again_has_another_generation() {
    let running = |task: usize| Wanted {
        silent: HEARD,
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
    let all = Wanted { running: [true; 6], services: [Some([true; 6]), None, None], silent: HEARD };
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
    let wanted =
        Wanted { running: [true; 6], services: [Some([true; 6]), Some([true; 6]), None], silent: HEARD };
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
    kernel.ports.values_mut().for_each(|word| *word = !*word);
    kernel.slots.values_mut().for_each(|line| line.fill(0));
    round(&mut kernel);
    kernel.frontends.pop_first();
    kernel.backends.get_mut(&1).unwrap().state = BackendState::Gone as u8;
    kernel.endpoints.clear();
    kernel.sources.clear();
    round(&mut kernel);
    assert_eq!(kernel.endpoints, whole.endpoints);
}

/// Nobody of ours writes such entries; programs would follow them all the same.
#[test]
fn entries_that_cannot_be_ours_are_removed() {
    let wanted = Wanted { running: [true; 6], services: [Some([true; 6]); 3], silent: HEARD };
    let (balance, facts) = (wanted.balance(), wanted.facts());
    let mut kernel = Kernel::default();
    let mut problems = Problems::new();
    let mut settle = |kernel: &mut Kernel| {
        for step in Books::open(SIZES, kernel.found()).steps(&balance, &facts, &mut problems) {
            kernel.carry_out(&step);
        }
    };
    settle(&mut kernel);
    // Which of two with one number is ours, nobody can tell: that is seen in what they mean.
    let (good, peers, sources) = (kernel.meaning(), kernel.peer_ids.clone(), kernel.sources.len());
    let one = kernel.frontends[&frontend_key(0)];
    kernel.frontends.insert(FrontendKey::vip(address(0).into()), Frontend { id: 0, ..one });
    kernel.frontends.insert(FrontendKey::vip(address(1).into()), one);
    kernel.frontends.insert(FrontendKey::published(Addr16::ANY_V4, NetPort::new(9999), TCP), one);
    kernel.sources.insert((64, SourceKey { frontend: 60, addr: address(0).into() }));
    kernel.peer_ids.insert(address(0).into(), 1);
    settle(&mut kernel);
    assert!(kernel.meaning() == good);
    assert_eq!((kernel.peer_ids, kernel.sources.len()), (peers, sources));
}
