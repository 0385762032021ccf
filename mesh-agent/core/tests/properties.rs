//! What holds whatever people do: random histories against the decisions.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::{
    self, AttachmentRequest, NetworkRequest, Refusal, ServiceRequest, ServiceUpdate, TaskChange, janitor,
};
use mesh_core::diff::diff;
use mesh_core::dns::Zone;
use mesh_core::liveness::{Masks, Notice, Verdict};
use mesh_core::model::{
    Affinity, Availability, Balancing, Ejected, EndpointMode, Health, HealthCheck, Locality, Node, Probe,
    Program, Protocol, PublishMode, PublishedPort, Resolver, Run, Service, ServiceId, Sickness, Snapshot,
    Task, TaskId,
};
use mesh_core::plan;
use proptest::prelude::*;
use sim::Sim;

/// What else plans depend on.
#[derive(Debug, Clone)]
struct Around {
    /// What nodes are taken for, in their order.
    verdicts: Vec<Option<Verdict>>,
    /// What nodes say of tasks, in their order.
    notices: Vec<Option<Notice>>,
    /// Each of so many services or tasks.
    odd: Vec<(Odd, usize)>,
}

/// What steps do not make of records, or no decision does: whoever wrote them may have been another.
#[derive(Debug, Clone, Copy)]
enum Odd {
    /// Somebody else has a copy of a service and of all that exists once.
    TwinService,
    /// Somebody else has a copy of a task, with its addresses.
    TwinTask,
    /// A task's service is not known.
    Orphan,
    /// A task has a name of its own, and perhaps no service.
    Named,
    /// A service wants a name that another one has.
    Alias,
    /// A service takes its own check for sick.
    Panics,
    /// A service's tasks serve on a drained node until others do.
    HandsOver,
    /// All uplinks carry less.
    Uplink,
}

fn around() -> impl Strategy<Value = Around> {
    use Odd::{Alias, HandsOver, Named, Orphan, Panics, TwinService, TwinTask, Uplink};
    use Verdict::{AgreedDown, Dead, Leaving, PathDown, Rebooted};
    let verdict = prop::sample::select(vec![AgreedDown, Dead, Leaving, PathDown, Rebooted]);
    let verdicts = prop::collection::vec(prop::option::weighted(0.2, verdict), 4);
    let odd = vec![TwinService, TwinTask, Orphan, Named, Alias, Panics, HandsOver, Uplink];
    let odd = prop::collection::vec((prop::sample::select(odd), 0..5usize), 0..3);
    let notices = prop::collection::vec(
        prop::option::weighted(0.2, prop::sample::select(vec![Notice::Gone, Notice::Sick])),
        8,
    );
    (verdicts, notices, prop_oneof![2 => Just(Vec::new()), 1 => odd])
        .prop_map(|(verdicts, notices, odd)| Around { verdicts, notices, odd })
}

impl Around {
    fn masks(&self, world: &Snapshot) -> Masks {
        let nodes = world.nodes.keys().zip(&self.verdicts);
        let tasks = world.tasks.keys().zip(&self.notices);
        Masks {
            nodes: nodes.filter_map(|(id, verdict)| Some((id.clone(), (*verdict)?))).collect(),
            tasks: tasks.filter_map(|(id, notice)| Some((id.clone(), (*notice)?))).collect(),
            ..Masks::default()
        }
    }

    /// Two may want the same.
    fn contests(&self) -> bool {
        self.odd.iter().any(|(odd, _)| matches!(odd, Odd::TwinService | Odd::TwinTask))
    }

    fn see(&self, world: &Snapshot) -> Snapshot {
        let mut world = world.clone();
        self.odd.iter().for_each(|(odd, place)| odd.put(*place, &mut world));
        world
    }
}

impl Odd {
    fn put(self, place: usize, world: &mut Snapshot) {
        let service = world.services.values().nth(place).cloned();
        let task = world.tasks.values().nth(place).cloned();
        let put = |world: &mut Snapshot, task: Task| _ = world.tasks.insert(task.id.clone(), Arc::new(task));
        match (self, service, task) {
            (Self::TwinService, Some(service), _) => {
                for id in ["0first", "zlast"].map(ServiceId::new) {
                    let twin = Service { id: id.clone(), ..(*service).clone() };
                    world.services.insert(id, Arc::new(twin));
                }
            }
            (Self::TwinTask, _, Some(task)) => {
                put(world, Task { id: TaskId::new("0first"), service: None, ..(*task).clone() });
                put(world, Task { id: TaskId::new("zlast"), ..(*task).clone() });
            }
            (Self::Orphan, _, Some(task)) => {
                put(world, Task { service: Some(ServiceId::new("nobody")), ..(*task).clone() });
            }
            (Self::Named, _, Some(task)) => {
                let service = task.service.clone().filter(|_| place.is_multiple_of(2));
                put(world, Task { name: "svc1".parse().ok(), service, ..(*task).clone() });
            }
            (Self::Alias, Some(service), _) => {
                let mut service = (*service).clone();
                let aliases = ["svc1", "svc2", "zz"].map(|name| name.parse().unwrap());
                service.networks.iter_mut().for_each(|at| at.aliases.extend(aliases.clone()));
                world.services.insert(service.id.clone(), Arc::new(service));
            }
            (Self::Panics, Some(service), _) => {
                let check = HealthCheck { panic: 90, ..HealthCheck::new(Probe::Tcp { port: 80 }) };
                let service = Service { health: Some(check), ..(*service).clone() };
                world.services.insert(service.id.clone(), Arc::new(service));
            }
            (Self::HandsOver, Some(service), _) => {
                let tasks: Vec<_> = world.tasks.of(&service.id).to_vec();
                tasks.iter().for_each(|task| put(world, Task { program: Some(1), ..(**task).clone() }));
                let run = Run {
                    command: vec!["true".to_owned()],
                    env: Vec::new(),
                    stop_signal: None,
                    resolver: Resolver::default(),
                };
                let (rollout, previous, update) = Default::default();
                let program =
                    Program { version: 1, run, replicas: 1, update, grace: None, rollout, previous };
                let service = Service { program: Some(program), ..(*service).clone() };
                world.services.insert(service.id.clone(), Arc::new(service));
            }
            (Self::Uplink, _, _) => {
                let nodes: Vec<_> = world.nodes.values().cloned().collect();
                for node in nodes {
                    let node = Node { uplink_mtu: 1400, ..(*node).clone() };
                    world.nodes.insert(node.id.clone(), Arc::new(node));
                }
            }
            (_, None, _) | (_, _, None) => {}
        }
    }
}

/// A small world, so that steps meet each other.
#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Leave(u8),
    Availability(u8, u8),
    Network(u8, bool),
    NetworkGone(u8),
    Service(u8, u8, u16, bool),
    ServiceGone(u8),
    Publish(u8, u16),
    Move(u8, u8),
    Mode(u8, bool),
    Task(u8, u8),
    TaskSet(u8, u16, bool),
    TaskGone(u8),
    TaskSick(u8, bool, bool),
    TaskStop(u8),
    TaskDrain(u8, bool),
    Depart(u8),
    Wait(u8),
    Blocks,
    Reattach,
    Janitor,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::{
        Availability, Blocks, Depart, Janitor, Join, Leave, Mode, Move, Network, NetworkGone, Publish,
        Reattach, Service, ServiceGone, Task, TaskDrain, TaskGone, TaskSet, TaskSick, TaskStop, Wait,
    };
    prop_oneof![
        3 => (0..4u8).prop_map(Join),
        1 => (0..4u8).prop_map(Leave),
        1 => (0..4u8, 0..3u8).prop_map(|(n, a)| Availability(n, a)),
        3 => (0..3u8, any::<bool>()).prop_map(|(n, i)| Network(n, i)),
        1 => (0..3u8).prop_map(NetworkGone),
        4 => (0..5u8, 0..3u8, 0..4u16, any::<bool>()).prop_map(|(s, n, p, d)| Service(s, n, p, d)),
        1 => (0..5u8).prop_map(ServiceGone),
        2 => (0..5u8, 0..4u16).prop_map(|(s, p)| Publish(s, p)),
        2 => (0..5u8, 0..3u8).prop_map(|(s, n)| Move(s, n)),
        1 => (0..5u8, any::<bool>()).prop_map(|(s, d)| Mode(s, d)),
        6 => (0..5u8, 0..4u8).prop_map(|(s, n)| Task(s, n)),
        2 => (any::<u8>(), 0..4u16, any::<bool>()).prop_map(|(t, w, d)| TaskSet(t, w, d)),
        2 => any::<u8>().prop_map(TaskGone),
        2 => (any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(t, h, e)| TaskSick(t, h, e)),
        1 => any::<u8>().prop_map(TaskStop),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(t, d)| TaskDrain(t, d)),
        1 => (0..4u8).prop_map(Depart),
        1 => (0..9u8).prop_map(Wait),
        2 => Just(Blocks),
        2 => Just(Reattach),
        1 => Just(Janitor),
    ]
}

/// A change takes a second, so it is over after a few.
const SLOW_START: Duration = Duration::from_millis(7_001);

fn port(published: u16) -> PublishedPort {
    PublishedPort {
        published: 8000 + published,
        target: 80,
        protocol: Protocol::Tcp,
        mode: if published.is_multiple_of(2) { PublishMode::Ingress } else { PublishMode::Host },
        host_ip: Vec::new(),
        nodes: Vec::new(),
        allow: Vec::new(),
    }
}

fn attachment(network: u8) -> AttachmentRequest {
    AttachmentRequest { network: format!("net{network}"), aliases: Vec::new() }
}

/// A refusal is a fine answer; a panic or a conflict on the newest world is not.
fn take(sim: &mut Sim, step: &Step) -> Result<(), Refusal> {
    match *step {
        Step::Join(n) => drop(sim.join(&format!("n{n}"), &format!("192.0.2.{}", n + 1))?),
        Step::Leave(n) => drop(sim.change(|world, _| change::remove_node(world, &format!("n{n}"), true))?),
        Step::Availability(n, a) => {
            let wanted = [Availability::Active, Availability::Pause, Availability::Drain][usize::from(a)];
            sim.change(|world, fresh| change::set_availability(world, &format!("n{n}"), wanted, fresh))?;
        }
        Step::Network(n, internal) => {
            let subnets = if n == 0 { vec!["10.0.0.0/24".parse().unwrap()] } else { vec![] };
            let request =
                NetworkRequest { name: format!("net{n}"), subnets, internal, ..NetworkRequest::default() };
            sim.change(|world, fresh| change::create_network(world, request, fresh))?;
        }
        Step::NetworkGone(n) => {
            drop(sim.change(|w, fresh| change::remove_network(w, &format!("net{n}"), fresh))?)
        }
        Step::Service(s, n, p, dnsrr) => {
            let request = ServiceRequest {
                name: format!("svc{s}"),
                networks: vec![attachment(n)],
                mode: if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip },
                ports: vec![port(p)],
                balancing: Balancing::Random,
                affinity: Affinity::None,
                locality: [Locality::Spread, Locality::PreferLocal, Locality::LocalOnly][usize::from(s % 3)],
                drain_timeout: Duration::from_secs(1),
                return_path: Default::default(),
                idle_timeout: None,
                discovery: Default::default(),
                slow_start: SLOW_START * u32::from(s % 2),
                passive_health: true,
                health: Default::default(),
                program: Default::default(),
                labels: BTreeMap::new(),
            };
            sim.change(|world, fresh| change::create_service(world, request, fresh))?;
        }
        Step::ServiceGone(s) => {
            drop(sim.change(|w, fresh| change::remove_service(w, &format!("svc{s}"), fresh))?)
        }
        Step::Publish(s, p) => {
            update(sim, s, ServiceUpdate { publish_add: vec![port(p)], ..ServiceUpdate::default() })?
        }
        Step::Move(s, n) => {
            update(sim, s, ServiceUpdate { network_add: vec![attachment(n)], ..ServiceUpdate::default() })?;
        }
        Step::Mode(s, dnsrr) => {
            let mode = if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip };
            update(sim, s, ServiceUpdate { mode: Some(mode), ..ServiceUpdate::default() })?;
        }
        Step::Task(s, n) => {
            if sim.world().node(&format!("n{n}")).is_some() {
                sim.task(&format!("svc{s}"), &format!("n{n}"))?;
            }
        }
        Step::TaskSet(t, weight, draining) => {
            if let Some((node, task)) = pick(sim, t) {
                let wanted =
                    TaskChange { weight: Some(weight), draining: Some(draining), ..TaskChange::default() };
                sim.set(&node, &task, wanted)?;
            }
        }
        Step::TaskGone(t) => {
            if let Some((node, task)) = pick(sim, t) {
                let me = sim.me(&node);
                sim.own_change(&me.id, |world, _| change::forget_task(world, &me, &task))?;
            }
        }
        Step::TaskSick(t, healthy, ejected) => {
            if let Some((node, task)) = pick(sim, t) {
                let health = if healthy { Health::Healthy } else { Health::Unhealthy };
                let ejected = ejected.then(|| Ejected { since: sim.now(), row: 1, why: Sickness::Refuses });
                let wanted =
                    TaskChange { health: Some(health), ejected: Some(ejected), ..TaskChange::default() };
                sim.set(&node, &task, wanted)?;
            }
        }
        Step::TaskStop(t) => {
            if let Some((_, task)) = pick(sim, t) {
                sim.change(|world, _| change::stop_task(world, task.as_str()))?;
            }
        }
        Step::TaskDrain(t, drain) => {
            if let Some((_, task)) = pick(sim, t) {
                let wanted = if drain { Availability::Drain } else { Availability::Active };
                sim.change(|world, fresh| {
                    change::set_task_availability(world, task.as_str(), wanted, fresh)
                })?;
            }
        }
        Step::Depart(n) => {
            if let Some(id) = sim.world().node(&format!("n{n}")).map(|node| node.id.clone()) {
                sim.change(|world, _| change::depart(world, &id))?;
            }
        }
        Step::Wait(seconds) => sim.wait(seconds.into()),
        Step::Blocks => sim.claim_blocks(),
        Step::Reattach => sim.reattach(),
        Step::Janitor => {
            let txn = janitor(sim.world(), &BTreeSet::new());
            assert!(sim.commit(&txn));
        }
    }
    Ok(())
}

fn update(sim: &mut Sim, service: u8, wanted: ServiceUpdate) -> Result<(), Refusal> {
    sim.change(|world, fresh| change::update_service(world, &format!("svc{service}"), wanted, fresh))
        .map(drop)
}

fn pick(sim: &Sim, t: u8) -> Option<(String, TaskId)> {
    let world = sim.world();
    let task = world.tasks.values().nth(usize::from(t) % world.tasks.len().max(1))?;
    Some((world.nodes.get(&task.node)?.name.to_string(), task.id.clone()))
}

/// Nothing that exists once is given out twice, and nothing overlaps.
fn unique(world: &Snapshot) {
    let mut addresses = BTreeSet::new();
    for service in world.services.values() {
        for vip in service.networks.iter().filter_map(|a| a.vip) {
            assert!(addresses.insert(vip.v4), "VIP {} twice", vip.v4);
        }
    }
    for task in world.tasks.values() {
        for (network, address) in &task.addresses {
            assert!(addresses.insert(address.v4), "address {} twice", address.v4);
            let network = &world.networks[network];
            let block = network.block_of(address.v4.into()).expect("a task's address is in a block");
            assert_eq!(world.blocks[&(network.id.clone(), block)], task.node, "in a block of its node");
        }
    }
    let subnets: Vec<_> = world.networks.values().flat_map(|network| network.subnets()).collect();
    for (index, a) in subnets.iter().enumerate() {
        assert!(subnets[..index].iter().all(|b| !a.contains(b) && !b.contains(a)), "{a} overlaps");
    }
    let vnis: BTreeSet<_> = world.networks.values().map(|network| network.vni).collect();
    assert_eq!(vnis.len(), world.networks.len());
    let ports: Vec<_> = world.services.values().flat_map(|service| &service.ports).collect();
    for (index, a) in ports.iter().enumerate() {
        assert!(ports[..index].iter().all(|b| a.conflict(b).is_none()), "port {a} twice");
    }
    assert!(world.poison.is_empty(), "we can read what we write: {:?}", world.poison);
}

/// Plans are total, repeatable, and send flows only where they may go.
fn planned(world: &Snapshot, now: u64) {
    for node in world.nodes.keys() {
        let desired = plan::desired(world, node, now);
        assert_eq!(desired, plan::desired(&world.clone(), node, now));
        for (frontend, pool) in &desired.balance.frontends {
            for backend in pool.backends.iter() {
                let task = &world.tasks[&backend.id];
                assert!(world.in_balance(task), "{frontend:?} leads to {}", pool.task(backend));
                assert!(backend.weight > 0);
                assert!(
                    desired.overlay.routes.keys().any(|net| net.contains(&backend.address)),
                    "there is a way to {}",
                    backend.address
                );
            }
        }
        for device in desired.overlay.endpoints.keys() {
            assert!(device.len() <= 15 && desired.balance.ports.contains_key(device));
        }
    }
}

/// Slow starts go on by themselves, at the moments that plans tell and at no others, alike on all nodes, and end.
fn ramps(world: &Snapshot, start: u64) {
    let mut ends = Vec::new();
    for node in world.nodes.keys() {
        let mut now = start;
        let mut plans = Vec::new();
        loop {
            let desired = plan::desired(world, node, now);
            let Some(next) = desired.next else {
                plans.push((now, desired));
                break;
            };
            assert!(next > now);
            let just_before = plan::desired(world, node, next - 1);
            assert_eq!(just_before, desired, "nothing changes before its time");
            plans.push((now, desired));
            now = next;
        }
        assert!(now <= start + 7_001, "all shares are whole in the end");
        let (_, last) = plans.last().unwrap();
        for backend in last.balance.frontends.values().flat_map(|pool| pool.backends.iter()) {
            assert_eq!(backend.weight, world.tasks[&backend.id].weight);
        }
        ends.push(plans);
    }
    // Of pools with the same backends: a locality's differ by node.
    for now in ends.iter().flatten().map(|(now, _)| *now).collect::<BTreeSet<_>>() {
        let mut weights = BTreeMap::new();
        for node in world.nodes.keys() {
            for (at, pool) in &plan::desired(world, node, now).balance.frontends {
                let ids: Vec<_> = pool.backends.iter().map(|backend| backend.id.clone()).collect();
                let here: Vec<_> = pool.backends.iter().map(|backend| backend.weight).collect();
                assert_eq!(
                    weights.entry((at.clone(), ids)).or_insert_with(|| here.clone()),
                    &here,
                    "nodes agree"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_history_is_sound(steps in prop::collection::vec(step(), 0..60)) {
        let mut sim = Sim::new();
        for step in &steps {
            let before = sim.store.rev();
            if take(&mut sim, step).is_err() {
                // Step::Task is two changes; all others are one or none.
                prop_assert!(sim.store.rev() == before || matches!(step, Step::Task(..)), "nothing half-applied");
            }
            unique(sim.world());
        }
        planned(sim.world(), sim.now());
        ramps(sim.world(), sim.now());
    }

    /// Whoever plans round after round plans the same as who begins with this one, and makes nothing anew that stayed.
    #[test]
    fn what_came_before_does_not_matter(steps in prop::collection::vec((step(), around()), 0..60)) {
        let mut sim = Sim::new();
        let mut planners: BTreeMap<_, plan::Planner> = BTreeMap::new();
        for (step, around) in &steps {
            drop(take(&mut sim, step));
            let world = around.see(sim.world());
            let masks = around.masks(&world);
            for node in world.nodes.keys() {
                let planner = planners.entry(node.clone()).or_default();
                let now = sim.now();
                let planned = planner.desired(&world, node, &masks, now);
                let anew = plan::Planner::default().desired(&world, node, &masks, now);
                prop_assert_eq!(&planned, &anew);
                prop_assert!(around.contests() || planned.zone == Zone::build_where_heard(&world, node, &masks));
                let again = planner.desired(&world.clone(), node, &masks, now);
                prop_assert_eq!(&again, &planned);
                let mut both = again.balance.frontends.iter().zip(&planned.balance.frontends);
                let same = around.contests() || both.all(|(a, b)| Arc::ptr_eq(a.1, b.1));
                prop_assert!(same, "two plans of one world share their pools");
            }
        }
    }

    /// Nodes that do not answer get no flows where others serve; where they alone do, all stays as it was.
    #[test]
    fn silence_takes_nobody_the_last_task(steps in prop::collection::vec(step(), 0..60), silent in any::<u8>()) {
        let mut sim = Sim::new();
        steps.iter().for_each(|step| drop(take(&mut sim, step)));
        let nodes = sim.world().nodes.keys().zip(0..).filter(|(_, bit)| silent >> bit & 1 == 1);
        let nodes: BTreeMap<_, _> = nodes.map(|(id, _)| (id.clone(), Verdict::Dead)).collect();
        let masks = Masks::from(nodes);
        for node in sim.world().nodes.keys() {
            let all = plan::desired(sim.world(), node, sim.now()).balance;
            let masked = plan::Planner::default().desired(sim.world(), node, &masks, sim.now()).balance;
            prop_assert!(all.sites.keys().eq(masked.sites.keys()), "flows that run go on");
            for (before, site) in all.sites.values().zip(masked.sites.values()) {
                let on = sim.world().nodes.values().find(|node| Some(node.address) == site.peer);
                let silent = on.is_some_and(|node| masks.nodes.contains_key(&node.id));
                prop_assert_eq!(&**site, &plan::Site { silent, ..plan::Site::clone(before) });
            }
            prop_assert!(all.frontends.keys().eq(masked.frontends.keys()));
            for (before, pool) in all.frontends.values().zip(masked.frontends.values()) {
                let (heard, rest): (Vec<_>, Vec<_>) =
                    before.backends.iter().cloned().partition(|backend| !masks.nodes.contains_key(&backend.node));
                let all_heard = pool.backends.iter().all(|backend| !masks.nodes.contains_key(&backend.node));
                let tasks = sim.world().service(pool.service.as_str()).map(|service| sim.world().tasks.of(&service.id));
                if tasks.into_iter().flatten().all(|task| task.ejected.is_none()) {
                    prop_assert_eq!(&pool.backends[..], if heard.is_empty() { &rest[..] } else { &heard[..] });
                } else if heard.is_empty() {
                    // A sick one that is heard is better than none.
                    prop_assert!(all_heard && !pool.backends.is_empty() || pool.backends[..] == rest[..]);
                } else {
                    prop_assert!(all_heard && heard.iter().all(|backend| pool.backends.contains(backend)));
                }
            }
        }
    }

    /// Applying the difference of any two plans gives the second one, and then nothing is left to do.
    #[test]
    fn differences_converge(first in prop::collection::vec(step(), 0..40), then in prop::collection::vec(step(), 0..20)) {
        let mut sim = Sim::new();
        first.iter().for_each(|step| drop(take(&mut sim, step)));
        let old = sim.world().clone();
        then.iter().for_each(|step| drop(take(&mut sim, step)));
        for node in sim.world().nodes.keys() {
            let (have, want) = (plan::desired(&old, node, 0).overlay.routes, plan::desired(sim.world(), node, 0).overlay.routes);
            let changes = diff(&have, &want);
            let mut kernel = have;
            kernel.retain(|key, _| !changes.removed.contains_key(key));
            kernel.extend(changes.changed.into_iter().chain(changes.added));
            prop_assert_eq!(&kernel, &want);
            prop_assert!(diff(&kernel, &want).is_empty());
        }
    }
}
