//! **Decision.** Why a flow goes where it goes, or is refused, in words.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::liveness::Masks;
use crate::model::{Affinity, Balancing, NodeId, Protocol, Service, Snapshot, Task, Timestamp};
use crate::plan::{self, Family, Frontend, Planner, Pool};
use crate::serving::why_not_here;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub client: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// To which port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// A backend and its share of new flows.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    /// `web.1`
    pub task: String,
    /// Where the flow would go.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// The node's name.
    pub node: String,
    /// Of all new flows, 0 to 1.
    pub share: f64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// `VIP 10.0.0.5 of web in app`, `published port 8080/tcp`; none: not for the mesh.
    pub frontend: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// How backends are chosen.
    pub policy: String,
    /// Who can get it.
    pub backends: Vec<Share>,
    /// Tasks of the service that cannot, and why.
    pub excluded: Vec<(String, String)>,
    /// What happens, in one sentence.
    pub verdict: String,
    /// Whether the flow gets anywhere.
    pub refused: bool,
}

/// Explains a flow that enters the mesh at a node: at the one whose address it goes to, else at `node`. `masks`: who gets no
/// new flows there for now.
pub fn explain(world: &Snapshot, masks: &Masks, node: &NodeId, flow: &Flow, now: Timestamp) -> Explanation {
    let node =
        world.nodes.values().find(|node| node.address == flow.destination).map_or(node, |node| &node.id);
    let desired = Planner::default().desired(world, node, masks, now);
    let name = world.nodes.get(node).map_or_else(|| node.to_string(), |node| node.name.to_string());
    let source = world.networks.values().find(|n| n.subnets().any(|net| net.contains(&flow.client)));
    if let Some((frontend, pool)) = find(&desired.balance, flow) {
        if let Frontend::Vip { vni, .. } = frontend
            && source.is_none_or(|network| network.vni != *vni)
            && !world.nodes.values().any(|node| node.address == flow.client)
        {
            let network =
                world.networks.values().find(|n| n.vni == *vni).map_or(String::new(), |n| n.name.to_string());
            let why = format!(
                "refused: {} is a VIP of network {network}, and {} is not in it",
                flow.destination, flow.client
            );
            return refused(world, frontend, pool, why);
        }
        if !pool.allow.is_empty() && !allowed(&pool.allow, flow.client) {
            let ranges: Vec<_> = pool.allow.iter().map(ToString::to_string).collect();
            let why = format!(
                "refused: it is open to {} only, and {} is not in it",
                ranges.join(", "),
                flow.client
            );
            return refused(world, frontend, pool, why);
        }
        return through(world, masks, &name, flow, frontend, pool);
    }
    let inside = world.networks.values().find(|n| n.subnets().any(|net| net.contains(&flow.destination)));
    match inside {
        Some(network) if source.is_some_and(|source| source.id == network.id) => {
            let task = world.tasks.values().find(|task| {
                task.addresses.values().any(|address| address.addresses().any(|a| a == flow.destination))
            });
            match task {
                Some(task) => {
                    let mut direct = nothing(format!("goes straight to task {}", world.task_name(task)));
                    direct.refused = false;
                    direct
                }
                None => {
                    nothing(format!("refused: nothing in network {} has {}", network.name, flow.destination))
                }
            }
        }
        Some(network) => nothing(format!(
            "refused: {} is in network {}, and {} is not",
            flow.destination, network.name, flow.client
        )),
        None => {
            let mut other = nothing(format!(
                "not for the mesh: node {name} publishes no port {}/{} there",
                flow.port, flow.protocol
            ));
            other.refused = world.nodes.values().any(|node| node.address == flow.destination);
            other
        }
    }
}

fn find<'a>(balance: &'a plan::Balance, flow: &Flow) -> Option<(&'a Frontend, &'a Pool)> {
    let family = Family::of(flow.destination);
    let published =
        |address| Frontend::Published { protocol: flow.protocol, port: flow.port, address, family };
    let vip = balance.frontends.iter().find(
        |(frontend, _)| matches!(frontend, Frontend::Vip { address, .. } if *address == flow.destination),
    );
    let inside =
        balance.networks.values().flat_map(|gate| &gate.subnets).any(|net| net.contains(&flow.destination));
    vip.or_else(|| balance.frontends.get_key_value(&published(Some(flow.destination))))
        .or_else(|| if inside { None } else { balance.frontends.get_key_value(&published(None)) })
        .map(|(frontend, pool)| (frontend, pool.as_ref()))
}

fn allowed(allow: &[IpNet], client: IpAddr) -> bool {
    allow.iter().any(|net| net.contains(&client))
}

fn through(
    world: &Snapshot,
    masks: &Masks,
    node: &str,
    flow: &Flow,
    frontend: &Frontend,
    pool: &Pool,
) -> Explanation {
    let total: f64 = pool.backends.iter().map(|backend| f64::from(backend.weight)).sum();
    let backends: Vec<Share> = pool
        .backends
        .iter()
        .map(|backend| Share {
            task: pool.task(backend),
            address: backend.address,
            port: pool.target.unwrap_or(flow.port),
            node: world.nodes.get(&backend.node).map_or_else(String::new, |node| node.name.to_string()),
            share: f64::from(backend.weight) / total,
        })
        .collect();
    let service = world.services.values().find(|service| service.name == pool.service);
    let excluded = service.map_or_else(Vec::new, |service| {
        world
            .tasks_of(&service.id)
            .filter(|task| !pool.backends.iter().any(|backend| backend.id == task.id))
            .map(|task| (world.task_name(task), why_not_here(world, masks, task)))
            .collect()
    });
    let verdict = if backends.is_empty() {
        format!("refused by node {node}: no task of {} can take it", pool.service)
    } else {
        format!("balanced by node {node} over {} of {}", count(backends.len()), pool.service)
    };
    Explanation {
        frontend: Some(describe(world, frontend)),
        service: Some(pool.service.to_string()),
        policy: policy(pool, service.map(AsRef::as_ref)),
        refused: backends.is_empty(),
        backends,
        excluded,
        verdict,
    }
}

fn refused(world: &Snapshot, frontend: &Frontend, pool: &Pool, why: String) -> Explanation {
    let (frontend, service) = (Some(describe(world, frontend)), Some(pool.service.to_string()));
    Explanation { frontend, service, ..nothing(why) }
}

fn nothing(verdict: String) -> Explanation {
    Explanation {
        frontend: None,
        service: None,
        policy: String::new(),
        backends: Vec::new(),
        excluded: Vec::new(),
        verdict,
        refused: true,
    }
}

fn count(tasks: usize) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

fn policy(pool: &Pool, service: Option<&Service>) -> String {
    let how = match pool.balancing {
        Balancing::Random => "each new flow at random, by weight",
        Balancing::Maglev => "by a hash of the flow, the same on every node",
        Balancing::LeastConn => "to the task with the fewest flows",
    };
    let mut policy = how.to_owned();
    if let Affinity::ClientIp { timeout } = pool.affinity {
        policy.push_str(&format!("; a client stays with its task for {} s", timeout.as_secs()));
    }
    if let Some(window) = service.map(|service| service.slow_start).filter(|window| !window.is_zero()) {
        policy.push_str(&format!("; a new task's share grows for {window:?}"));
    }
    policy
}

fn describe(world: &Snapshot, frontend: &Frontend) -> String {
    match frontend {
        Frontend::Vip { vni, address } => {
            let network = world.networks.values().find(|network| network.vni == *vni);
            format!(
                "VIP {address} in network {}",
                network.map_or_else(|| vni.to_string(), |n| n.name.to_string())
            )
        }
        Frontend::Published { protocol, port, address: Some(address), .. } => {
            format!("published port {address}:{port}/{protocol}")
        }
        Frontend::Published { protocol, port, address: None, .. } => {
            format!("published port {port}/{protocol}")
        }
    }
}

/// Why a task gets no new flows.
pub fn why_not(world: &Snapshot, task: &Task) -> String {
    use crate::model::{Availability, Health, TaskState};
    let node = world.nodes.get(&task.node);
    if world.stops.contains_key(&task.id) {
        "is being stopped".to_owned()
    } else if task.state != TaskState::Running {
        format!("is {}, not Running", task.state)
    } else if task.health == Health::Starting {
        "is starting: its health check has not succeeded yet".to_owned()
    } else if task.health == Health::Unhealthy {
        ["is unhealthy", &task.message]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(": ")
    } else if task.draining {
        "is draining".to_owned()
    } else if world.task_specs.get(&task.id).is_some_and(|spec| spec.availability == Availability::Drain) {
        "is drained".to_owned()
    } else if task.weight == 0 {
        "has weight 0".to_owned()
    } else if node.is_none() {
        "its node is not in the mesh".to_owned()
    } else if world.availability(&task.node) == Availability::Drain {
        format!("its node {} is drained", node.map_or("", |node| node.name.as_str()))
    } else if world.is_withdrawn(&task.node) {
        format!("its node {} has left the mesh", node.map_or("", |node| node.name.as_str()))
    } else if let Some(ejected) = task.ejected.filter(|_| world.turnout_for(task).leaves_out(task)) {
        format!("ejected: {}", ejected.why.words())
    } else {
        "has no address there, or another node's locality rule leaves it out".to_owned()
    }
}
