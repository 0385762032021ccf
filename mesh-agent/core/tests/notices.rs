//! What nodes say of their tasks before the records do.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod sim;

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_core::change::{self, Me, NetworkRequest, TaskChange};
use mesh_core::liveness::{Bulletin, HINT_LIFE, Masks, Notice, Notices};
use mesh_core::message::Word;
use mesh_core::model::{Health, NodeId, Task, TaskId, TaskState};
use mesh_core::plan::{Frontend, Planner};
use proptest::prelude::*;
use sim::Sim;

/// A mesh of two nodes, with a task of `web` on each.
fn two() -> (Sim, [Task; 2]) {
    let mut sim = Sim::new();
    sim.join("n1", "192.0.2.1").unwrap();
    sim.join("n2", "192.0.2.2").unwrap();
    let app = NetworkRequest { name: "app".to_owned(), ..NetworkRequest::default() };
    sim.change(|world, fresh| change::create_network(world, app, fresh)).unwrap();
    sim.change(|world, fresh| change::create_service(world, sim::service("web"), fresh)).unwrap();
    let tasks = ["n1", "n2"].map(|node| {
        let task = sim.task("web", node).unwrap();
        set(&mut sim, &task, Health::Healthy)
    });
    (sim, tasks)
}

fn set(sim: &mut Sim, task: &Task, health: Health) -> Task {
    let me = Me { id: task.node.clone(), epoch: task.epoch };
    let change =
        TaskChange { health: Some(health), state: Some(TaskState::Running), ..TaskChange::default() };
    sim.change(|world, fresh| change::change_task(world, &me, &task.id, change, fresh)).unwrap()
}

fn address(task: &Task) -> IpAddr {
    task.addresses.values().next().unwrap().v4.into()
}

fn known(task: &Task, notice: Notice) -> BTreeMap<TaskId, Notice> {
    BTreeMap::from([(task.id.clone(), notice)])
}

/// Who gets what comes to the VIP.
fn serve(sim: &Sim, on: &NodeId, tasks: BTreeMap<TaskId, Notice>) -> Vec<TaskId> {
    let masks = Masks { tasks, ..Masks::default() };
    let desired = Planner::default().desired(sim.world(), on, &masks, 0);
    let vip = desired.balance.frontends.iter().find(|(at, _)| matches!(at, Frontend::Vip { .. })).unwrap();
    vip.1.backends.iter().map(|backend| backend.id.clone()).collect()
}

#[test]
fn whoever_is_said_to_be_sick_or_gone_serves_nobody() {
    let (sim, [one, two]) = two();
    for node in [&one.node, &two.node] {
        assert_eq!(serve(&sim, node, BTreeMap::new()).len(), 2);
        for notice in [Notice::Sick, Notice::Gone] {
            assert_eq!(serve(&sim, node, known(&one, notice)), std::slice::from_ref(&two.id));
        }
        let all = [&one, &two].map(|task| (task.id.clone(), Notice::Sick));
        assert!(serve(&sim, node, all.into()).is_empty(), "as their records will have it");
    }
}

#[test]
fn it_is_said_three_times_until_the_record_says_it_and_taken_back_by_who_is_well() {
    let (mut sim, [task, _]) = two();
    let mut bulletin = Bulletin::default();
    let mut ticks = |sim: &Sim, known: &BTreeMap<_, _>, count: usize| -> Vec<Word> {
        (0..count).flat_map(|_| bulletin.tick(sim.world(), known)).collect()
    };
    let (sick, well) = (Word::Task(Some(Notice::Sick), address(&task)), Word::Task(None, address(&task)));
    assert!(ticks(&sim, &BTreeMap::new(), 5).is_empty());
    assert_eq!(ticks(&sim, &known(&task, Notice::Sick), 20), [sick; 3]);
    assert_eq!(ticks(&sim, &known(&task, Notice::Sick), 90), [sick; 2], "now and then");
    let gone = Word::Task(Some(Notice::Gone), address(&task));
    assert_eq!(ticks(&sim, &known(&task, Notice::Gone), 20), [gone; 3], "worse");
    let task = set(&mut sim, &task, Health::Unhealthy);
    assert!(ticks(&sim, &known(&task, Notice::Sick), 200).is_empty(), "by now the store has it");
    assert_eq!(ticks(&sim, &BTreeMap::new(), 20), [well; 3]);
    assert!(ticks(&sim, &known(&task, Notice::Sick), 20).is_empty(), "that is what the record says");
}

#[test]
fn nobody_speaks_of_what_is_in_no_balance_nor_of_others_tasks() {
    let (mut sim, [one, two]) = two();
    let mut notices = Notices::default();
    let in_force = |notices: &Notices, sim: &Sim| notices.in_force(sim.world(), &BTreeMap::new());
    notices.told(sim.world(), &one.node, Some(Notice::Gone), address(&two), 0);
    notices.told(sim.world(), &one.node, Some(Notice::Gone), [192, 0, 2, 9].into(), 0);
    assert!(in_force(&notices, &sim).is_empty());
    notices.told(sim.world(), &two.node, Some(Notice::Gone), address(&two), 0);
    assert_eq!(in_force(&notices, &sim), known(&two, Notice::Gone));
    notices.expire(sim.world(), HINT_LIFE - 1);
    assert_eq!(in_force(&notices, &sim), known(&two, Notice::Gone));
    notices.expire(sim.world(), HINT_LIFE);
    assert!(in_force(&notices, &sim).is_empty(), "nobody has said it again");
    notices.told(sim.world(), &one.node, Some(Notice::Sick), address(&one), 0);
    set(&mut sim, &one, Health::Unhealthy);
    assert!(in_force(&notices, &sim).is_empty(), "it is what the record says");
    assert_eq!(notices.in_force(sim.world(), &known(&two, Notice::Sick)), known(&two, Notice::Sick));
}

/// However many there are: not more is sent in a row than a thread that probes has time for, and in the end all is said.
#[test]
fn many_are_spoken_of_one_after_the_other() {
    let (mut sim, [first, _]) = two();
    for number in 3..200 {
        sim.join(&format!("n{number}"), &format!("192.0.2.{number}")).unwrap();
    }
    let mut tasks = vec![first];
    for _ in 0..60 {
        let task = sim.task("web", "n1").unwrap();
        tasks.push(set(&mut sim, &task, Health::Healthy));
    }
    let known: BTreeMap<_, _> = tasks.iter().map(|task| (task.id.clone(), Notice::Sick)).collect();
    let mut bulletin = Bulletin::default();
    let mut said = BTreeMap::new();
    for _ in 0..20 {
        let words = bulletin.tick(sim.world(), &known);
        assert!(words.len() * 199 <= 3000);
        words.into_iter().for_each(|word| *said.entry(format!("{word:?}")).or_insert(0) += 1);
    }
    assert_eq!(said.len(), tasks.len());
    assert!(said.values().all(|times| *times == 3));
}

/// What happens to a task.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Its node finds it sick.
    Sick,
    /// Or well.
    Well,
    /// The store has what the node knows.
    Written,
    /// Time goes by.
    Tick,
}

proptest! {
    /// Whatever happens, whichever datagram is lost, and however late the store is: once it has written down what the node
    /// knows nothing else is in force, and before that the notice is.
    #[test]
    fn others_know_what_its_node_knows(
        steps in prop::collection::vec(prop::sample::select(vec![Step::Sick, Step::Well, Step::Written, Step::Tick]), 0..60),
        lost: prop::sample::Index,
    ) {
        let (mut sim, [task, other]) = two();
        let (mut bulletin, mut notices, mut said) = (Bulletin::default(), Notices::default(), 0);
        let mut sick = false;
        let lost = lost.index(100);
        let end = [Step::Tick; 3];
        for (now, step) in (0..).zip(steps.into_iter().chain(end)) {
            match step {
                Step::Sick => sick = true,
                Step::Well => sick = false,
                Step::Written => _ = set(&mut sim, &task, if sick { Health::Unhealthy } else { Health::Healthy }),
                Step::Tick => {}
            }
            let knows = if sick { known(&task, Notice::Sick) } else { BTreeMap::new() };
            for word in bulletin.tick(sim.world(), &knows) {
                let Word::Task(notice, about) = word else { panic!("{word:?}") };
                if said != lost {
                    notices.told(sim.world(), &task.node, notice, about, now);
                }
                said += 1;
            }
        }
        let recorded = sim.world().tasks[&task.id].health == Health::Unhealthy;
        let serves = serve(&sim, &other.node, notices.in_force(sim.world(), &BTreeMap::new()));
        prop_assert_eq!(serves.contains(&task.id), !sick && !recorded);
    }
}
