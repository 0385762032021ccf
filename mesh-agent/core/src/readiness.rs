//! **Decision.** What a load balancer in front of the nodes is told: whether new flows may come, and how many.

use std::collections::BTreeMap;

use crate::explain::why_not;
use crate::liveness::Verdict;
use crate::model::{
    Health, Locality, NodeId, PublishMode, PublishedPort, Service, Snapshot, Task, TaskState,
};

/// Whether new flows may come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They may; so many of a hundred that a full share would be, 1–100.
    Up(u8),
    /// What runs may go on, and nothing new is to come: it is about to leave.
    Draining(String),
    /// Nothing is to come.
    Down(String),
}

/// How a node is told apart: what it is, and who does not answer it.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The node that is asked.
    pub node: &'a NodeId,
    /// The nodes that do not answer it.
    pub silent: &'a BTreeMap<NodeId, Verdict>,
}

impl Entry<'_> {
    /// Whether flows from outside may come to this node at all.
    pub fn node(&self, world: &Snapshot) -> Readiness {
        let Some(node) = world.nodes.get(self.node) else {
            return Readiness::Down("this node has not joined the mesh yet".to_owned());
        };
        if !world.is_withdrawn(self.node) {
            return Readiness::Up(100);
        }
        let why = if node.left { "leaves" } else { "is drained" };
        Readiness::Draining(format!("node {} {why}", node.name))
    }

    /// Whether flows to a service's published ports may come to this node, as its data plane would balance them.
    pub fn service(&self, world: &Snapshot, service: &Service) -> Readiness {
        let node = self.node(world);
        let (Readiness::Up(_), Some(me)) = (&node, world.nodes.get(self.node)) else { return node };
        let here = |port: &&PublishedPort| port.nodes.is_empty() || port.nodes.contains(&me.name);
        let Some(port) = service.ports.iter().find(here) else {
            let (service, node) = (&service.name, &me.name);
            return Readiness::Down(format!("service {service} publishes no port on node {node}"));
        };
        let tasks = world.tasks.of(&service.id);
        let turnout = world.turnout(service, tasks);
        let mut shares = BTreeMap::<_, u64>::new();
        for task in tasks.iter().filter(|task| world.serves(task, &turnout)) {
            *shares.entry(&task.node).or_default() += u64::from(task.weight);
        }
        let own = shares.get(self.node).copied().unwrap_or_default();
        let local = port.mode == PublishMode::Host || service.locality == Locality::LocalOnly;
        match shares.values().max() {
            None => Readiness::Down(format!("no task of service {} can serve", service.name)),
            // Its own tasks alone get what comes here: as much as their share is beside that of other nodes'.
            Some(most) if local && own > 0 => Readiness::Up(percent(own, *most)),
            Some(_) if local => {
                Readiness::Down(format!("no task of service {} here can serve", service.name))
            }
            // Where nobody is heard, the data plane tries all the same; whoever can choose chooses another node.
            Some(_) if shares.keys().all(|node| self.silent.contains_key(*node)) => {
                Readiness::Down(format!("this node hears no node with a task of service {}", service.name))
            }
            Some(_) => Readiness::Up(100),
        }
    }

    /// Whether flows to a task may come: a hundred is the share of the heaviest task of its service.
    pub fn task(&self, world: &Snapshot, task: &Task) -> Readiness {
        if self.silent.contains_key(&task.node) {
            return Readiness::Down("its node does not answer".to_owned());
        }
        if world.serves(task, &world.turnout_for(task)) {
            let service = task.service.as_ref();
            let others = service.into_iter().flat_map(|service| world.tasks_of(service));
            let most = others.map(|task| task.weight).max().unwrap_or(task.weight);
            return Readiness::Up(percent(task.weight.into(), most.into()));
        }
        let why = why_not(world, task);
        let runs = task.state == TaskState::Running && task.health != Health::Unhealthy;
        if world.is_leaving(task) && runs { Readiness::Draining(why) } else { Readiness::Down(why) }
    }
}

/// A share of the most, so that it is not nothing.
fn percent(share: u64, most: u64) -> u8 {
    let percent = (share * 100).checked_div(most).unwrap_or(100);
    u8::try_from(percent).unwrap_or(100).clamp(1, 100)
}
