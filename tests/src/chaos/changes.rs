//! **Effect.** Changes asked for by the API, and what was said to them.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use serde_json::Value;

use super::{
    Change, Event, Ledger, Place,
    cluster::{node, serve, service},
    records,
};
use crate::Lab;

/// How long an answer may take, and a task that goes may wait for its clients; then nobody knows.
pub(super) const PATIENCE: Duration = Duration::from_secs(25);

/// Asks, and remembers what was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Changes {
    ledger: Ledger,
    /// The ids of tasks, by their numbers.
    tasks: BTreeMap<u32, String>,
    refused: usize,
    asked: usize,
}

impl Changes {
    /// Asks for one change and waits for the answer. What is refused, or not answered, may have happened.
    pub(super) fn ask(&mut self, lab: &Lab, change: &Change) {
        self.asked += 1;
        let said = match change {
            Change::AddTask { number, service, node } => self.add_task(lab, *number, *service, *node),
            Change::RemoveTask { number, via } => self.remove_task(lab, *number, *via),
            Change::Publish { port, service: of, via } => {
                let argv = ["service", "update", "-d", "--publish-add", &ports(*port), &service(*of)];
                self.mesh(lab, *via, &argv, &port_of(*port), true)
            }
            Change::Unpublish { port, service: of, via } => {
                let argv = ["service", "update", "-d", "--publish-rm", &ports(*port), &service(*of)];
                self.mesh(lab, *via, &argv, &port_of(*port), false)
            }
            Change::Create { number, via } => {
                let name = extra(*number);
                let argv = ["service", "create", "-d", "--name", &name, "--network", "app"];
                self.mesh(lab, *via, &argv, &format!("service {name}"), true)
            }
            Change::Remove { number, via } => {
                let name = extra(*number);
                self.mesh(lab, *via, &["service", "rm", &name], &format!("service {name}"), false)
            }
        };
        if let Err(error) = said {
            self.refused += 1;
            eprintln!("    {change:?}: {error:#}");
        }
    }

    /// How many there were, and how many were not acknowledged.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.asked, self.refused)
    }

    /// What was acknowledged and is not in the records.
    pub(super) fn lost(&self, history: &[Event]) -> Vec<String> {
        let records = records::last(history);
        self.ledger.lost(|thing| {
            records.iter().any(|(key, record)| match thing.split_once(' ') {
                Some(("task", id)) => *key == format!("task/{id}") && record["state"] == "running",
                Some(("service", name)) => key.starts_with("svc/") && record["name"] == name,
                Some(("port", port)) => key.starts_with("svc/") && publishes(record, port),
                _ => false,
            })
        })
    }

    fn add_task(&mut self, lab: &Lab, number: u32, service: usize, place: Place) -> Result<()> {
        // Until it is acknowledged nobody knows its id.
        let id = serve(lab, service, place)?;
        self.ledger.note(&format!("task {id}"), true, true);
        self.tasks.insert(number, id);
        Ok(())
    }

    fn remove_task(&mut self, lab: &Lab, number: u32, via: Place) -> Result<()> {
        let Some(id) = self.tasks.get(&number).cloned() else { return Ok(()) };
        self.mesh(lab, via, &["task", "rm", &id], &format!("task {id}"), false)
    }

    fn mesh(&mut self, lab: &Lab, via: Place, argv: &[&str], thing: &str, there: bool) -> Result<()> {
        let said = node(lab, via)?.mesh_command(argv).timeout(PATIENCE).ok();
        self.ledger.note(thing, there, said.is_ok());
        said.map(drop)
    }
}

/// A port of its own, with a target of its own, for a port is taken away by its target.
fn ports(port: u16) -> String {
    format!("{port}:{port}")
}

fn port_of(port: u16) -> String {
    format!("port {port}")
}

/// A service that comes and goes.
fn extra(number: u32) -> String {
    format!("x{number}")
}

fn publishes(service: &Value, port: &str) -> bool {
    let (ports, port) = (service["ports"].as_array(), port.parse().ok());
    ports.is_some_and(|ports| ports.iter().any(|published| published["published"].as_u64() == port))
}
