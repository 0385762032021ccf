//! **Decision.** What a load balancer in front of the nodes is told: whether new flows may come, and how many.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::explain::why_not;
use crate::liveness::Masks;
use crate::model::{
    Health, Locality, NodeId, Protocol, PublishMode, PublishedPort, Service, Snapshot, Task, TaskState,
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

impl Readiness {
    fn worse(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Up(one), Self::Up(two)) if one > two => other,
            (Self::Up(_), Self::Draining(_) | Self::Down(_)) | (Self::Draining(_), Self::Down(_)) => other,
            _ => self,
        }
    }
}

/// One of a service's published ports: `8080`, `53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortAsked {
    /// Its number.
    pub published: u16,
    /// None: whichever it is published for.
    pub protocol: Option<Protocol>,
}

impl FromStr for PortAsked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, protocol) = text.split_once('/').map_or((text, None), |(n, p)| (n, Some(p)));
        let wrong = || format!("'{text}' is no port: ask for one as 8080 or 53/udp");
        let published = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        let protocol = protocol.map(|name| name.parse().map_err(|_| wrong())).transpose()?;
        Ok(Self { published, protocol })
    }
}

/// How a node is told apart: what it is, and what it knows beside the records.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The node that is asked.
    pub node: &'a NodeId,
    /// The nodes that do not answer it, and tasks that cannot serve.
    pub masks: &'a Masks,
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

    /// Whether flows to a service's published ports may come to this node, as its data plane would balance them: to one
    /// port, else to each that is published here.
    pub fn service(&self, world: &Snapshot, service: &Service, port: Option<PortAsked>) -> Readiness {
        let node = self.node(world);
        let (Readiness::Up(_), Some(me)) = (&node, world.nodes.get(self.node)) else { return node };
        let asked = |port: &PublishedPort, asked: PortAsked| {
            port.published == asked.published && asked.protocol.is_none_or(|other| port.protocol == other)
        };
        let here = |known: &&PublishedPort| {
            (known.nodes.is_empty() || known.nodes.contains(&me.name))
                && port.is_none_or(|port| asked(known, port))
        };
        let tasks = &*self.masks.noted(world.tasks.of(&service.id));
        let turnout = self.masks.turnout(world, service, tasks);
        let mut shares = BTreeMap::<_, u64>::new();
        for task in tasks.iter().filter(|task| world.serves(task, &turnout)) {
            *shares.entry(&task.node).or_default() += u64::from(task.weight);
        }
        let each = service.ports.iter().filter(here).map(|port| self.port(service, port, &shares));
        // A balancer that asks about all sends all: one that cannot be served speaks for the others.
        each.reduce(Readiness::worse).unwrap_or_else(|| {
            let port = port.map_or_else(String::new, |port| format!(" {}", port.published));
            Readiness::Down(format!("service {} publishes no port{port} on node {}", service.name, me.name))
        })
    }

    /// Whether flows to a port may come. `shares`: which weight serves where.
    fn port(&self, service: &Service, port: &PublishedPort, shares: &BTreeMap<&NodeId, u64>) -> Readiness {
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
            Some(_) if shares.keys().all(|node| self.masks.nodes.contains_key(*node)) => {
                Readiness::Down(format!("this node hears no node with a task of service {}", service.name))
            }
            Some(_) => Readiness::Up(100),
        }
    }

    /// Whether flows to a task may come: a hundred is the share of the heaviest task of its service.
    pub fn task(&self, world: &Snapshot, task: &Task) -> Readiness {
        if self.masks.nodes.contains_key(&task.node) {
            return Readiness::Down("its node does not answer".to_owned());
        }
        if let Some(notice) = self.masks.tasks.get(&task.id) {
            return Readiness::Down(format!("it {}", notice.words()));
        }
        let service = task.service.as_ref().and_then(|id| world.services.get(id));
        let turnout = service.map(|service| {
            let tasks = self.masks.noted(world.tasks.of(&service.id));
            self.masks.turnout(world, service, &tasks)
        });
        if world.serves(task, &turnout.unwrap_or_default()) {
            let others = task.service.iter().flat_map(|service| world.tasks_of(service));
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
