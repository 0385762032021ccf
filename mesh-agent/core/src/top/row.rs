//! **Decision.** What the tables say.

use std::collections::BTreeMap;

use super::cell::Cell;
use super::column::View;
use super::filter::{Filter, Found};
use super::look::{Condition, Look, Mood, Node, Service, Task};
use super::rate::{Rate, Rates};
use super::words::count;

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Whose it is; never changes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// One for each column of the view.
    pub cells: Vec<Cell>,
    /// Why it is not as it should be.
    pub note: String,
}

/// The rows of a view that are looked for, as the agent orders them.
pub fn rows(look: &Look, rates: &Rates, view: View, filter: &Filter) -> Vec<Row> {
    let found = filter.choose(look);
    let sums = Sums { look, rates, found: &found };
    match view {
        View::Services => sums.services(),
        View::Tasks => sums.tasks(),
        View::Nodes => sums.nodes(),
    }
}

struct Sums<'a> {
    look: &'a Look,
    rates: &'a Rates,
    found: &'a Found<'a>,
}

impl<'a> Sums<'a> {
    /// Tasks by whom they belong to.
    fn by(&self, owner: impl Fn(&'a Task) -> &'a str) -> BTreeMap<&'a str, Vec<&'a Task>> {
        let mut by: BTreeMap<_, Vec<_>> = BTreeMap::new();
        self.look.tasks.iter().for_each(|task| by.entry(owner(task)).or_default().push(task));
        by
    }

    fn rate(&self, tasks: &[&Task]) -> Rate {
        tasks.iter().map(|task| self.rates.of(&task.id)).sum()
    }

    fn services(&self) -> Vec<Row> {
        let of = self.by(|task| &task.service);
        let found = self.look.services.iter().filter(|service| self.found.services.contains(&*service.id));
        found.map(|service| self.service(service, of.get(&*service.id).map_or(&[], Vec::as_slice))).collect()
    }

    fn service(&self, service: &Service, tasks: &[&Task]) -> Row {
        let Service { id, name, running, desired, update, ports, addresses, networks } = service;
        let [flows, bytes, packets, active] = cells(self.rate(tasks));
        Row {
            id: id.clone(),
            name: name.clone(),
            cells: vec![
                Cell::Text(name.clone()),
                Cell::Part(*running, *desired),
                state(*running, *desired, tasks),
                flows,
                bytes,
                packets,
                active,
                Cell::Text(ports.join(" ")),
                Cell::State(update.clone(), Mood::Warn),
                Cell::Text(addresses.join(" ")),
                Cell::Text(networks.join(" ")),
            ],
            note: String::new(),
        }
    }

    fn tasks(&self) -> Vec<Row> {
        let nodes: BTreeMap<_, _> = self.look.nodes.iter().map(|node| (&*node.id, &*node.name)).collect();
        let found = self.look.tasks.iter().filter(|task| self.found.tasks.contains(&*task.id));
        found.map(|task| self.task(task, nodes.get(&*task.node).copied().unwrap_or(&task.node))).collect()
    }

    fn task(&self, task: &Task, on: &str) -> Row {
        let Task { id, name, service: _, node: _, condition, reason, health, weight, addresses, left } = task;
        let [flows, bytes, packets, active] = cells(self.rates.of(id));
        let mood = match &**health {
            "unhealthy" => Mood::Bad,
            "starting" => Mood::Warn,
            _ => Mood::Good,
        };
        Row {
            id: id.clone(),
            name: name.clone(),
            cells: vec![
                Cell::Text(name.clone()),
                Cell::Text(on.to_owned()),
                Cell::State(condition.word().to_owned(), condition.mood()),
                Cell::State(health.clone(), mood),
                flows,
                bytes,
                packets,
                active,
                Cell::Count(*left),
                Cell::Count(Some(*weight)),
                Cell::Text(addresses.join(" ")),
                Cell::Text(reason.clone()),
            ],
            note: reason.clone(),
        }
    }

    fn nodes(&self) -> Vec<Row> {
        let on = self.by(|task| &task.node);
        let found = self.look.nodes.iter().filter(|node| self.found.nodes.contains(&*node.id));
        found.map(|node| self.node(node, on.get(&*node.id).map_or(&[], Vec::as_slice))).collect()
    }

    fn node(&self, node: &Node, tasks: &[&Task]) -> Row {
        let Node { id, name, address, state, message, availability, role, this: _, problems } = node;
        let [flows, bytes, packets, active] = cells(self.rate(tasks));
        let mood = match &**state {
            "ready" => Mood::Good,
            "leaving" | "unknown" => Mood::Warn,
            _ => Mood::Bad,
        };
        let wanted = if availability == "active" { Mood::Good } else { Mood::Warn };
        let there = tasks.iter().filter(|task| task.condition != Condition::Ended);
        let serving = there.clone().filter(|task| task.condition.mood() == Mood::Good);
        Row {
            id: id.clone(),
            name: name.clone(),
            cells: vec![
                Cell::Text(name.clone()),
                Cell::State(state.clone(), mood),
                Cell::State(availability.clone(), wanted),
                Cell::Part(serving.count(), there.count()),
                flows,
                bytes,
                packets,
                active,
                Cell::Count(Some(*problems)),
                Cell::Text(role.clone()),
                Cell::Text(address.clone()),
                Cell::Text(message.clone()),
            ],
            note: message.clone(),
        }
    }
}

fn cells(Rate { flows, bytes, packets, active }: Rate) -> [Cell; 4] {
    [Cell::Rate(flows), Cell::Rate(bytes), Cell::Rate(packets), Cell::Count(active)]
}

/// How a service fares: `serving`, or how many of its tasks do not and why, the worst first.
fn state(running: usize, desired: usize, tasks: &[&Task]) -> Cell {
    let few = running < desired;
    let mut mood = Mood::Good;
    let mut words = Vec::new();
    for condition in Condition::ALL {
        let many = tasks.iter().filter(|task| task.condition == condition).count();
        // One that failed and was replaced is history.
        let counts = match condition {
            Condition::Serving | Condition::Running | Condition::Ended => false,
            Condition::Failed => few,
            _ => true,
        };
        if many > 0 && counts {
            mood = mood.max(condition.mood());
            words.push(format!("{many} {}", condition.word()));
        }
    }
    let none = desired == 0 && tasks.iter().all(|task| task.condition == Condition::Ended);
    let (words, mood) = if !words.is_empty() {
        (words.join(", "), if running == 0 { Mood::Bad } else { mood })
    } else if none {
        ("no tasks".to_owned(), Mood::Warn)
    } else if few {
        (format!("{} missing", count(desired - running, "task")), Mood::Bad)
    } else {
        ("serving".to_owned(), Mood::Good)
    };
    Cell::State(words, mood)
}
