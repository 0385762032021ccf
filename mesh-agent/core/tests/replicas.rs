//! Services whose command the mesh runs: where tasks start, and how they are replaced.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::change::{
    self, NetworkRequest, ProgramWish, ServiceRequest, ServiceUpdate, TaskChange, TaskRequest,
};
use mesh_core::kv::{Op, Txn};
use mesh_core::model::{
    Availability, FailureAction, Health, Live, NodeId, Origin, RolloutState, RunFailure, ServiceId, Task,
    TaskId, TaskState, UpdateOrder,
};
use mesh_core::{records, replicas};
use proptest::prelude::*;
use sim::Sim;

/// A mesh whose nodes start what falls to them, as fast as nodes can.
struct Fleet {
    sim: Sim,
    lost: BTreeSet<NodeId>,
    /// The fewest and the most tasks that served at any time.
    served: (usize, usize),
}

fn wish(replicas: u32, order: UpdateOrder) -> ProgramWish {
    ProgramWish {
        command: Some(vec!["serve".to_owned()]),
        replicas: Some(replicas),
        order: Some(order),
        monitor: Some(Duration::ZERO),
        ..ProgramWish::default()
    }
}

impl Fleet {
    fn new(nodes: usize, program: ProgramWish) -> Self {
        let mut sim = Sim::new();
        for n in 1..=nodes {
            sim.join(&format!("n{n}"), &format!("192.0.2.{n}")).unwrap();
        }
        let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
        sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
        let service = ServiceRequest { program, ..sim::service("web") };
        sim.change(|world, fresh| change::create_service(world, service, fresh)).unwrap();
        let mut fleet = Self { sim, lost: BTreeSet::new(), served: (usize::MAX, 0) };
        for n in 1..=nodes {
            fleet.live(&format!("n{n}"), Live::default());
        }
        fleet
    }

    fn live(&mut self, node: &str, live: Live) {
        let key = records::live(&self.sim.me(node).id);
        let put = Op::Put { key, value: records::to_json(&live), lease: None };
        assert!(self.sim.commit(&Txn { compares: Vec::new(), ops: vec![put] }));
    }

    fn service(&self) -> ServiceId {
        self.sim.world().service("web").unwrap().id.clone()
    }

    fn update(&mut self, program: ProgramWish) {
        let update = ServiceUpdate { program, ..ServiceUpdate::default() };
        self.sim.change(|world, fresh| change::update_service(world, "web", update, fresh)).unwrap();
    }

    fn availability(&mut self, node: &str, availability: Availability) {
        self.sim.change(|world, fresh| change::set_availability(world, node, availability, fresh)).unwrap();
    }

    /// Starts everything that is to be started; how many were.
    fn start(&mut self) -> usize {
        let mut started = 0;
        for node in self.sim.world().nodes.values().cloned().collect::<Vec<_>>() {
            for start in replicas::to_start(self.sim.world(), &node.id, &self.lost) {
                let me = self.sim.me(node.name.as_str());
                let request = TaskRequest {
                    service: Some(start.service.to_string()),
                    name: None,
                    networks: Vec::new(),
                    origin: Origin::Process { pid: self.sim.now() as u32, start: 1, supervised: true },
                    weight: 1,
                    dns: Vec::new(),
                    packets_only: false,
                    state: TaskState::Running,
                    slot: Some(start.slot),
                    program: Some(start.version),
                };
                let added =
                    self.sim.own_change(&me.id, |world, fresh| change::add_task(world, &me, request, fresh));
                // A snapshot changes with each start: another slot may be taken by now, which is no harm.
                started += usize::from(added.is_ok());
            }
        }
        started
    }

    /// One step of the one node that tells tasks to stop; which ones.
    fn conduct(&mut self) -> Vec<TaskId> {
        let (service, lost, now) = (self.service(), self.lost.clone(), self.sim.now());
        self.sim.change(|world, _| replicas::conduct(world, &service, now, &lost)).unwrap()
    }

    /// Ends all that were told to.
    fn end(&mut self) -> usize {
        let stops: Vec<_> = self.sim.world().stops.keys().cloned().collect();
        for id in &stops {
            let node = self.sim.world().tasks[id].node.clone();
            if self.lost.contains(&node) {
                continue;
            }
            let me = self.sim.me(self.sim.world().nodes[&node].name.clone().as_str());
            self.sim.own_change(&me.id, |world, _| change::forget_task(world, &me, id)).unwrap();
        }
        stops.len()
    }

    fn note(&mut self) {
        let world = self.sim.world();
        let serving = world.tasks.values().filter(|task| world.in_balance(task)).count();
        self.served = (self.served.0.min(serving), self.served.1.max(serving));
    }

    /// Until nothing changes any more.
    fn settle(&mut self) {
        self.served = (usize::MAX, 0);
        for _ in 0..200 {
            let before = self.sim.store.rev();
            self.start();
            self.note();
            self.conduct();
            self.note();
            self.end();
            self.note();
            if self.sim.store.rev() == before {
                return;
            }
        }
        panic!("it never settles: {:#?}", self.sim.world().tasks);
    }

    fn per_node(&self) -> BTreeMap<String, usize> {
        let world = self.sim.world();
        let mut all: BTreeMap<_, _> = world.nodes.values().map(|node| (node.name.to_string(), 0)).collect();
        for task in world.tasks.values() {
            *all.get_mut(world.nodes[&task.node].name.as_str()).unwrap() += 1;
        }
        all
    }

    fn rollout(&self) -> (RolloutState, String) {
        let rollout = self.sim.world().service("web").unwrap().program.clone().unwrap().rollout.unwrap();
        (rollout.state, rollout.message)
    }

    fn only(&self) -> Arc<Task> {
        let tasks: Vec<_> = self.sim.world().tasks.values().cloned().collect();
        assert_eq!(tasks.len(), 1);
        Arc::clone(&tasks[0])
    }

    fn versions(&self) -> BTreeSet<u64> {
        self.sim.world().tasks.values().map(|task| task.program.unwrap()).collect()
    }
}

#[test]
fn tasks_are_spread_over_the_nodes_that_take_part() {
    let mut fleet = Fleet::new(3, wish(7, UpdateOrder::StopFirst));
    fleet.settle();
    let counts: Vec<_> = fleet.per_node().into_values().collect();
    assert!(counts.iter().all(|count| (2..=3).contains(count)), "{counts:?}");
    fleet.update(ProgramWish { replicas: Some(2), ..ProgramWish::default() });
    fleet.settle();
    assert_eq!(fleet.sim.world().tasks.len(), 2);
    assert!(fleet.per_node().into_values().all(|count| count <= 1), "{:?}", fleet.per_node());
    // A change of how many replaces nothing.
    assert_eq!(fleet.versions(), BTreeSet::from([1]));
    fleet.availability("n2", Availability::Pause);
    fleet.update(ProgramWish { replicas: Some(6), ..ProgramWish::default() });
    fleet.settle();
    assert!(fleet.per_node()["n2"] <= 1, "{:?}", fleet.per_node());
}

#[test]
fn a_drained_node_hands_its_tasks_over() {
    let mut fleet = Fleet::new(3, wish(3, UpdateOrder::StopFirst));
    fleet.settle();
    fleet.availability("n1", Availability::Drain);
    fleet.settle();
    assert_eq!(fleet.per_node()["n1"], 0);
    assert_eq!(fleet.sim.world().tasks.len(), 3);
    assert!(fleet.served.0 >= 2, "{:?}", fleet.served);
}

/// The only one, of a service that says nothing of an order: another serves before it goes.
#[test]
fn a_drained_node_serves_until_others_do_in_its_stead() {
    for order in [None, Some(UpdateOrder::StartFirst)] {
        let mut fleet = Fleet::new(3, ProgramWish { order, ..wish(1, UpdateOrder::StartFirst) });
        fleet.settle();
        let old = fleet.only();
        let from = fleet.sim.world().nodes[&old.node].name.to_string();
        fleet.availability(&from, Availability::Drain);
        assert!(fleet.sim.world().hands_over(&old.node));
        assert_eq!((fleet.conduct(), fleet.start()), (Vec::new(), 1));
        let new = fleet.sim.world().tasks.values().find(|task| task.id != old.id).cloned().unwrap();
        assert_ne!(new.node, old.node);
        let to = fleet.sim.world().nodes[&new.node].name.to_string();
        let health = |health| TaskChange { health: Some(health), ..TaskChange::default() };
        fleet.sim.set(&to, &new.id, health(Health::Starting)).unwrap();
        assert_eq!((fleet.conduct(), fleet.start()), (Vec::new(), 0), "it is not ready");
        assert!(fleet.sim.world().in_balance(&old));
        fleet.sim.set(&to, &new.id, health(Health::Healthy)).unwrap();
        assert_eq!(fleet.conduct(), std::slice::from_ref(&old.id));
        assert!(!fleet.sim.world().in_balance(&old) && !fleet.sim.world().hands_over(&old.node));
        fleet.settle();
        assert_eq!(fleet.sim.world().tasks.keys().collect::<Vec<_>>(), [&new.id]);
    }
}

/// Where there must not be two, where nobody else could serve, and once it takes too long.
#[test]
fn the_operators_will_counts_in_the_end() {
    let drained = |nodes, order| {
        let mut fleet = Fleet::new(nodes, ProgramWish { order, ..wish(1, UpdateOrder::StartFirst) });
        fleet.settle();
        let old = fleet.only();
        let from = fleet.sim.world().nodes[&old.node].name.to_string();
        fleet.availability(&from, Availability::Drain);
        (fleet, old, from)
    };
    let (mut fleet, old, _) = drained(2, Some(UpdateOrder::StopFirst));
    assert!(!fleet.sim.world().in_balance(&old));
    assert_eq!(fleet.conduct(), std::slice::from_ref(&old.id));
    let (mut fleet, old, _) = drained(1, None);
    assert_eq!(fleet.conduct(), std::slice::from_ref(&old.id));
    let (mut fleet, old, from) = drained(2, None);
    fleet.sim.wait(280);
    assert_eq!(fleet.conduct(), []);
    // Whoever changes his mind loses nothing.
    fleet.availability(&from, Availability::Active);
    fleet.sim.wait(40);
    assert_eq!(fleet.conduct(), []);
    fleet.availability(&from, Availability::Drain);
    fleet.sim.wait(280);
    assert_eq!(fleet.conduct(), []);
    fleet.sim.wait(40);
    assert_eq!(fleet.conduct(), std::slice::from_ref(&old.id));
}

/// What is sick serves nobody: it goes at once.
#[test]
fn a_sick_task_of_a_drained_node_is_not_waited_for() {
    let mut fleet = Fleet::new(2, ProgramWish { order: None, ..wish(1, UpdateOrder::StartFirst) });
    fleet.settle();
    let old = fleet.only();
    let from = fleet.sim.world().nodes[&old.node].name.to_string();
    let sick = TaskChange { health: Some(Health::Unhealthy), ..TaskChange::default() };
    fleet.sim.set(&from, &old.id, sick).unwrap();
    fleet.availability(&from, Availability::Drain);
    assert_eq!(fleet.conduct(), std::slice::from_ref(&old.id));
}

#[test]
fn stop_first_never_has_more_and_start_first_never_less() {
    for (order, served) in [(UpdateOrder::StopFirst, (2, 3)), (UpdateOrder::StartFirst, (3, 4))] {
        let mut fleet = Fleet::new(2, wish(3, order));
        fleet.settle();
        fleet.update(ProgramWish { command: Some(vec!["new".to_owned()]), ..ProgramWish::default() });
        assert_eq!(fleet.rollout().0, RolloutState::Updating);
        fleet.settle();
        assert_eq!(fleet.served, served, "{order}");
        assert_eq!(fleet.versions(), BTreeSet::from([2]));
        assert_eq!(fleet.rollout().0, RolloutState::Completed);
        assert_eq!(fleet.sim.world().tasks.len(), 3);
    }
}

#[test]
fn parallelism_and_delay_pace_a_replacement() {
    let mut fleet = Fleet::new(2, wish(4, UpdateOrder::StopFirst));
    fleet.settle();
    fleet.update(ProgramWish {
        force: true,
        parallelism: Some(2),
        delay: Some(Duration::from_secs(1000)),
        ..ProgramWish::default()
    });
    assert_eq!(fleet.conduct().len(), 2);
    assert_eq!(fleet.conduct().len(), 0);
    fleet.end();
    fleet.start();
    assert_eq!(fleet.conduct().len(), 0, "the delay has not passed");
    fleet.sim.wait(1001);
    assert_eq!(fleet.conduct().len(), 2);
}

#[test]
fn an_old_task_goes_only_once_the_new_one_is_healthy() {
    let mut fleet = Fleet::new(2, wish(1, UpdateOrder::StartFirst));
    fleet.settle();
    fleet.update(ProgramWish { force: true, ..ProgramWish::default() });
    assert_eq!(fleet.start(), 1);
    let new = fleet.sim.world().tasks.values().find(|task| task.program == Some(2)).cloned().unwrap();
    let node = fleet.sim.world().nodes[&new.node].name.to_string();
    let health = |health| TaskChange { health: Some(health), ..TaskChange::default() };
    fleet.sim.set(&node, &new.id, health(Health::Starting)).unwrap();
    assert_eq!((fleet.start(), fleet.conduct().len()), (0, 0));
    fleet.sim.set(&node, &new.id, health(Health::Healthy)).unwrap();
    assert_eq!(fleet.conduct().len(), 1);
}

#[test]
fn a_failure_pauses_rolls_back_or_is_passed_over() {
    let failed = |version| RunFailure { version, count: 1, message: "it ended (exit status: 1)".to_owned() };
    for action in [FailureAction::Pause, FailureAction::Rollback, FailureAction::Continue] {
        let mut fleet = Fleet::new(2, wish(2, UpdateOrder::StartFirst));
        fleet.settle();
        fleet.update(ProgramWish {
            command: Some(vec!["bad".to_owned()]),
            failure_action: Some(action),
            ..ProgramWish::default()
        });
        let failures = BTreeMap::from([(fleet.service(), failed(2))]);
        fleet.live("n2", Live { failures, ..Live::default() });
        fleet.conduct();
        let (state, message) = fleet.rollout();
        match action {
            FailureAction::Pause => {
                assert_eq!(state, RolloutState::Paused);
                assert!(
                    message.contains("update paused due to failure") && message.contains("n2"),
                    "{message}"
                );
                fleet.settle();
                assert_eq!(fleet.versions(), BTreeSet::from([1]));
            }
            FailureAction::Rollback => {
                assert_eq!(state, RolloutState::RollbackStarted);
                fleet.settle();
                assert_eq!(fleet.rollout().0, RolloutState::RollbackCompleted);
                let program = fleet.sim.world().service("web").unwrap().program.clone().unwrap();
                assert_eq!(program.run.command, ["serve"]);
            }
            FailureAction::Continue => {
                fleet.settle();
                assert_eq!(fleet.rollout().0, RolloutState::Completed);
            }
        }
    }
}

#[test]
fn a_pause_takes_no_task_that_serves() {
    let mut fleet = Fleet::new(2, wish(2, UpdateOrder::StartFirst));
    fleet.settle();
    fleet.update(ProgramWish { force: true, ..ProgramWish::default() });
    assert_eq!(fleet.start(), 1);
    let new = fleet.sim.world().tasks.values().find(|task| task.program == Some(2)).cloned().unwrap();
    let node = fleet.sim.world().nodes[&new.node].name.to_string();
    let health = TaskChange { health: Some(Health::Starting), ..TaskChange::default() };
    fleet.sim.set(&node, &new.id, health).unwrap();
    let failure = RunFailure { version: 2, count: 1, message: "it ended".to_owned() };
    let failures = BTreeMap::from([(fleet.service(), failure)]);
    fleet.live(&node, Live { failures, ..Live::default() });
    assert!(fleet.conduct().is_empty());
    assert_eq!(fleet.rollout().0, RolloutState::Paused);
    assert_eq!(fleet.conduct(), std::slice::from_ref(&new.id));
}

#[test]
fn a_node_that_is_lost_is_replaced_and_its_tasks_go_when_it_returns() {
    let mut fleet = Fleet::new(3, wish(3, UpdateOrder::StopFirst));
    fleet.settle();
    let id = fleet.sim.me("n3").id;
    assert!(fleet.sim.commit(&Txn { compares: Vec::new(), ops: vec![Op::Delete(records::live(&id))] }));
    // Silence alone starts nothing.
    assert_eq!(fleet.start(), 0);
    fleet.lost = replicas::lost(fleet.sim.world(), &BTreeSet::from([id]));
    assert_eq!(fleet.start(), 1);
    fleet.lost = BTreeSet::new();
    fleet.live("n3", Live::default());
    fleet.settle();
    assert_eq!(fleet.sim.world().tasks.len(), 3);
    // Where most are silent, nobody is lost.
    let all: BTreeSet<_> = fleet.sim.world().nodes.keys().cloned().collect();
    for node in &all {
        fleet.sim.commit(&Txn { compares: Vec::new(), ops: vec![Op::Delete(records::live(node))] });
    }
    assert_eq!(replicas::lost(fleet.sim.world(), &all), BTreeSet::new());
}

#[test]
fn wishes_that_make_no_sense_are_refused() {
    let mut fleet = Fleet::new(1, ProgramWish::default());
    let mut refused = |program: ProgramWish| {
        let update = ServiceUpdate { program, ..ServiceUpdate::default() };
        let asked = fleet.sim.change(|world, fresh| change::update_service(world, "web", update, fresh));
        asked.unwrap_err().to_string()
    };
    let replicas = ProgramWish { replicas: Some(3), ..ProgramWish::default() };
    assert!(refused(replicas).contains("name one with --cmd"));
    let command = |words: &[&str]| ProgramWish {
        command: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        ..ProgramWish::default()
    };
    assert!(refused(command(&[])).contains("is empty"));
    let env = ProgramWish { env_add: vec!["A".to_owned()], ..command(&["x"]) };
    assert!(refused(env).contains("write KEY=VALUE"));
    assert!(refused(ProgramWish { replicas: Some(10_001), ..command(&["x"]) }).contains("at most 10000"));
    assert!(refused(ProgramWish { rollback: true, ..command(&["x"]) }).contains("previous version"));
}

proptest! {
    /// Whatever is asked for in whatever order, it settles with as many tasks as are wanted, all of the present
    /// version, evenly spread when nothing kept them from it.
    #[test]
    fn it_settles(
        steps in prop::collection::vec((0_u8..5, 1_u32..6, 0_u32..4, 0_usize..3), 1..8),
        start_first: bool,
    ) {
        let order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
        let mut fleet = Fleet::new(3, wish(2, order));
        for (what, replicas, parallelism, node) in steps {
            let node = format!("n{}", node + 1);
            match what {
                0 => fleet.update(ProgramWish { replicas: Some(replicas), ..ProgramWish::default() }),
                1 => fleet.update(ProgramWish {
                    force: true, parallelism: Some(parallelism), ..ProgramWish::default()
                }),
                2 => fleet.availability(&node, Availability::Drain),
                3 => fleet.availability(&node, Availability::Active),
                _ => { fleet.start(); fleet.conduct(); }
            }
        }
        for n in 1..=3 {
            fleet.availability(&format!("n{n}"), Availability::Active);
        }
        fleet.settle();
        let program = fleet.sim.world().service("web").unwrap().program.clone().unwrap();
        prop_assert_eq!(fleet.sim.world().tasks.len(), program.replicas as usize);
        prop_assert!(fleet.versions().iter().all(|version| *version == program.version));
        prop_assert!(fleet.sim.world().stops.is_empty());
    }
}
