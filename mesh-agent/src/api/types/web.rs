//! **Decision.** What the web page is told: the mesh as one node sees it, and what that node sends to whom. Pure.
//!
//! Whoever reaches the page may read this, so it holds no text that a program or a command wrote, no command, no
//! environment, no label, no path and no process; see docs/adr/0043.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::explain::why_not;
use mesh_core::liveness::Echo;
use mesh_core::model::{self, NodeId, Snapshot, TaskId, TaskState, Turnout, Vni};
use mesh_ebpf::abi::Stats;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Availability, EndpointMode, Health, NodeStatus, PortConfig, Problem, Protocol, PublishMode, rfc3339,
};
use crate::dataplane::ebpf::Served;
use crate::status::Status;

/// More tasks than that are not told: a page would not show them in time.
pub const MOST_TASKS: usize = 5_000;

/// The mesh as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebState {
    /// The node that tells.
    pub node: WebSelf,
    /// All nodes, by name.
    pub nodes: Vec<WebNode>,
    /// All services, by name.
    pub services: Vec<WebService>,
    /// Tasks, by service and number.
    pub tasks: Vec<WebTask>,
    /// How many more there are.
    pub tasks_left_out: usize,
}

/// The node that tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebSelf {
    /// Its name; empty while it is not in the mesh.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// Whether its data plane counts flows: without that there are no rates.
    pub counts: bool,
    /// Whether it is in step with the store.
    pub store_connected: bool,
    /// What the plan could not do.
    pub problems: Vec<Problem>,
    /// How many objects of the kernel are not as planned; `mesh status` says which.
    pub failing: usize,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebNode {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where other nodes reach it.
    pub addr: String,
    /// As in the list of nodes: `ready`, `down`, `disconnected`, `leaving` or `unknown`.
    pub state: String,
    /// Why, unless it is ready.
    pub message: String,
    /// What the operator wants of it.
    pub availability: Availability,
    /// `manager`, `worker`, or empty where it belongs to no cluster.
    pub role: String,
    /// Whether it is the one that tells.
    #[serde(rename = "Self")]
    pub this: bool,
    /// How many things are wrong on it; `mesh status` there says what.
    pub problems: usize,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebService {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// How it is found.
    pub mode: EndpointMode,
    /// Names of its networks.
    pub networks: Vec<String>,
    /// Its virtual addresses.
    #[serde(rename = "VirtualIPs")]
    pub virtual_ips: Vec<String>,
    /// Ports of the nodes that lead to it.
    pub ports: Vec<WebPort>,
    /// How many of its tasks get new flows from the node that tells.
    pub running_tasks: usize,
    /// How many there should be.
    pub desired_tasks: usize,
    /// How far a replacement of its tasks is, unless it is over.
    pub update: String,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebPort {
    /// The port of the nodes.
    pub published: u16,
    /// The port of the tasks.
    pub target: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On all nodes, or where the tasks are.
    pub mode: PublishMode,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebTask {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// `web.1`, or its own.
    pub name: String,
    /// What it serves; empty: nothing.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// Where it runs.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// All of it in one word.
    pub condition: Condition,
    /// Why it gets no new flows.
    pub reason: String,
    /// How far it is.
    pub state: super::TaskState,
    /// Whether it can serve.
    pub health: Health,
    /// Share of new flows.
    pub weight: u16,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// How many connections it still has, where it gets no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// When it last changed (RFC 3339).
    pub updated_at: String,
}

/// A task in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It gets new flows.
    Serving,
    /// It runs and serves nothing.
    Running,
    /// It does not run, or its health check has not succeeded, yet.
    Starting,
    /// Its health check fails.
    Unhealthy,
    /// It is left out for what it makes of connections.
    Ejected,
    /// It gets no new flows, and those that it has may end.
    Draining,
    /// It runs, and gets no flows.
    Idle,
    /// Its node does not answer.
    Unreachable,
    /// It ended with an error, or its node lost it.
    Failed,
    /// It ended.
    Ended,
}

impl WebState {
    /// As node `me` sees the world. `heard`: what other nodes' kernels say of them, `counts`: whether flows are counted.
    pub fn of(
        world: &Snapshot,
        me: &NodeId,
        status: &Status,
        heard: &BTreeMap<NodeId, Echo>,
        counts: bool,
    ) -> Self {
        let mut nodes: Vec<_> = world
            .nodes
            .values()
            .map(|node| {
                let own = (node.id == *me).then_some(status.applied);
                let echo = heard.get(&node.id).copied();
                let seen = NodeStatus::of(world, node, own, status.silent.nodes.get(&node.id).copied(), echo);
                WebNode::of(world, node, seen, node.id == *me)
            })
            .collect();
        let known: BTreeMap<_, _> = nodes.iter().map(|node| (node.id.clone(), node.state.clone())).collect();
        let mut strange = BTreeMap::new();
        let mut told = Vec::new();
        let mut tell = |service: Option<&model::Service>, task: &model::Task, turnout: &Turnout| {
            let node = known.get(task.node.as_str()).map(String::as_str);
            if node.is_none() {
                strange.entry(task.node.clone()).or_insert_with(|| WebNode::strange(&task.node));
            }
            let name = service.map_or_else(|| world.task_name(task), |service| service.name.to_string());
            let place = (service.is_none(), name, task.slot, task.id.clone());
            told.push((place, WebTask::of(world, task, turnout, node)));
        };
        let mut services = Vec::new();
        for service in world.services.values() {
            let own = world.tasks.of(&service.id);
            let turnout = world.turnout(service, own);
            let reached = |task: &model::Task| {
                known.get(task.node.as_str()).is_some_and(|state| Condition::is_reached(state))
            };
            services.push(WebService::of(world, service, own, &turnout, reached));
            own.iter().for_each(|task| tell(Some(service), task, &turnout));
        }
        // Those of services that are gone, and those that never had one.
        let is_of =
            |task: &model::Task| task.service.as_ref().is_some_and(|id| world.services.contains_key(id));
        let alone = world.tasks.values().filter(|task| !is_of(task));
        alone.for_each(|task| tell(None, task, &Turnout::default()));

        nodes.extend(strange.into_values());
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        services.sort_by(|a, b| a.name.cmp(&b.name));
        told.sort_by(|(a, _), (b, _)| a.cmp(b));
        let tasks_left_out = told.len().saturating_sub(MOST_TASKS);
        told.truncate(MOST_TASKS);
        Self {
            node: WebSelf::of(world, me, status, counts),
            nodes,
            services,
            tasks: told.into_iter().map(|(_, task)| task).collect(),
            tasks_left_out,
        }
    }
}

impl WebSelf {
    fn of(world: &Snapshot, me: &NodeId, status: &Status, counts: bool) -> Self {
        let problem = |problem: &mesh_core::plan::Problem| Problem {
            about: problem.about.clone(),
            message: problem.message.clone(),
        };
        Self {
            name: world.nodes.get(me).map_or_else(String::new, |node| node.name.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            counts,
            store_connected: status.store.connected && status.store.problem.is_none(),
            problems: status.problems.iter().map(problem).collect(),
            failing: status.planes.values().map(|plane| plane.last.errors.len()).sum(),
        }
    }
}

impl WebNode {
    fn of(world: &Snapshot, node: &model::Node, seen: NodeStatus, this: bool) -> Self {
        let role = match world.identities.get(&node.id) {
            Some(_) if world.is_manager(&node.id) => "manager",
            Some(_) => "worker",
            None => "",
        };
        Self {
            id: node.id.to_string(),
            name: node.name.to_string(),
            addr: seen.addr,
            state: seen.state,
            message: seen.message,
            availability: world.availability(&node.id).into(),
            role: role.to_owned(),
            this,
            problems: seen.problems.len(),
        }
    }

    /// One that tasks name and that is not there.
    fn strange(id: &NodeId) -> Self {
        Self {
            id: id.to_string(),
            name: id.to_string(),
            addr: String::new(),
            state: "unknown".to_owned(),
            message: "it is not in the mesh".to_owned(),
            availability: Availability::Active,
            role: String::new(),
            this: false,
            problems: 0,
        }
    }
}

impl WebService {
    fn of(
        world: &Snapshot,
        service: &model::Service,
        tasks: &[std::sync::Arc<model::Task>],
        turnout: &Turnout,
        reached: impl Fn(&model::Task) -> bool,
    ) -> Self {
        let registered = tasks.iter().filter(|task| !task.state.is_terminal()).count();
        let program = service.program.as_ref();
        let update = program.and_then(|program| program.rollout.as_ref()).map(super::UpdateStatus::from);
        let names = service.networks.iter().filter_map(|at| world.networks.get(&at.network));
        Self {
            id: service.id.to_string(),
            name: service.name.to_string(),
            mode: service.mode.into(),
            networks: names.map(|network| network.name.to_string()).collect(),
            virtual_ips: service
                .networks
                .iter()
                .filter_map(|at| at.vip)
                .flat_map(|vip| vip.addresses().map(|address| address.to_string()).collect::<Vec<_>>())
                .collect(),
            ports: service.ports.iter().map(|port| WebPort::from(&PortConfig::from(port))).collect(),
            running_tasks: tasks.iter().filter(|task| world.serves(task, turnout) && reached(task)).count(),
            desired_tasks: program.map_or(registered, |program| program.replicas as usize),
            update: update
                .map(|update| update.state)
                .filter(|state| !state.ends_with("completed"))
                .unwrap_or_default(),
        }
    }
}

impl From<&PortConfig> for WebPort {
    fn from(port: &PortConfig) -> Self {
        Self {
            published: port.published_port,
            target: port.target_port,
            protocol: port.protocol,
            mode: port.publish_mode,
        }
    }
}

impl WebTask {
    fn of(world: &Snapshot, task: &model::Task, turnout: &Turnout, node: Option<&str>) -> Self {
        let condition = Condition::of(world, task, turnout, node);
        let reason = match condition {
            Condition::Serving | Condition::Running => String::new(),
            // What a check says may be what its command printed.
            Condition::Unhealthy if turnout.panics => {
                "its health check fails; it gets flows all the same, for most tasks are unhealthy".to_owned()
            }
            Condition::Unhealthy => "its health check fails".to_owned(),
            Condition::Unreachable => "its node does not answer this one".to_owned(),
            _ => why_not(world, task),
        };
        Self {
            id: task.id.to_string(),
            name: world.task_name(task),
            service_id: task.service.as_ref().map_or_else(String::new, ToString::to_string),
            node_id: task.node.to_string(),
            condition,
            reason,
            state: task.state.into(),
            health: task.health.into(),
            weight: task.weight,
            addresses: task
                .addresses
                .values()
                .flat_map(|at| at.addresses().map(|ip| ip.to_string()).collect::<Vec<_>>())
                .collect(),
            connections: world.live.get(&task.node).and_then(|live| live.connections.get(&task.id)).copied(),
            updated_at: rfc3339(task.updated),
        }
    }
}

impl Condition {
    /// Whether a node in that state gets flows for its tasks.
    fn is_reached(state: &str) -> bool {
        !matches!(state, "down" | "disconnected")
    }

    /// Of a task whose node is in that state; none: there is no such node.
    fn of(world: &Snapshot, task: &model::Task, turnout: &Turnout, node: Option<&str>) -> Self {
        match task.state {
            TaskState::Failed | TaskState::Rejected | TaskState::Orphaned => Self::Failed,
            TaskState::Complete | TaskState::Shutdown | TaskState::Remove => Self::Ended,
            _ if !node.is_some_and(Self::is_reached) => Self::Unreachable,
            _ if world.is_leaving(task) || node == Some("leaving") => Self::Draining,
            state if state < TaskState::Running || task.health == model::Health::Starting => Self::Starting,
            _ if task.health == model::Health::Unhealthy => Self::Unhealthy,
            _ if turnout.leaves_out(task) => Self::Ejected,
            _ if task.service.is_none() => Self::Running,
            _ if world.serves(task, turnout) => Self::Serving,
            _ => Self::Idle,
        }
    }
}

/// What the data plane of a node counted of a task, by all of its addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// New flows.
    pub flows: u64,
    /// Packets to it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flows that there are.
    pub active: u64,
}

/// Counted, by task. A backend whose task is gone from the records belongs to none.
pub fn sums(world: &Snapshot, loads: &[(Served, u64)]) -> BTreeMap<TaskId, Sum> {
    let mut owners: BTreeMap<(Vni, std::net::IpAddr), &TaskId> = BTreeMap::new();
    for task in world.tasks.values().filter(|task| !task.state.is_terminal()) {
        for (id, at) in &task.addresses {
            let Some(network) = world.networks.get(id) else { continue };
            owners.extend(at.addresses().map(|address| ((network.vni, address), &task.id)));
        }
    }
    let mut sums = BTreeMap::new();
    for (Served { vni, address, active: _, stats: Stats { flows, packets, bytes } }, active) in loads {
        let Some(owner) = owners.get(&(*vni, *address)) else { continue };
        let sum: &mut Sum = sums.entry((*owner).clone()).or_default();
        sum.flows += flows;
        sum.packets += packets;
        sum.bytes += bytes;
        sum.active += active;
    }
    sums
}

/// What the node that tells sent to tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct WebRates {
    /// By id of the task: new flows per second, bytes per second, flows that there are. Who gets nothing is left out.
    #[schema(value_type = BTreeMap<String, Vec<f64>>)]
    pub tasks: BTreeMap<String, [f64; 3]>,
}

impl WebRates {
    /// From what was counted at two moments, that far apart.
    pub fn between(before: &BTreeMap<TaskId, Sum>, after: &BTreeMap<TaskId, Sum>, apart: Duration) -> Self {
        let seconds = apart.as_secs_f64().max(0.001);
        let rate = |more: u64| (more as f64 / seconds * 10.0).round() / 10.0;
        let tasks = after.iter().map(|(id, now)| {
            // A task that came since then began at nothing.
            let then = before.get(id).copied().unwrap_or_default();
            let flows = rate(now.flows.saturating_sub(then.flows));
            let bytes = rate(now.bytes.saturating_sub(then.bytes)).round();
            (id.to_string(), [flows, bytes, now.active as f64])
        });
        Self { tasks: tasks.filter(|(_, values)| values.iter().any(|value| *value > 0.0)).collect() }
    }
}

#[cfg(test)]
mod tests;
