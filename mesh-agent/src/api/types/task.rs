//! **Fact.** Tasks on the wire: Docker's `Task`, and what a task's own node may say of it.

use std::net::IpAddr;
use std::path::PathBuf;

use mesh_core::change::{TaskChange, TaskRequest};
use mesh_core::liveness::Masks;
use mesh_core::model;
use mesh_core::serving::{Serving, why_not_here};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Availability, Health, TaskLife, TaskState, is_false, rfc3339};

/// Where a task lives on its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Origin {
    /// A process in a network namespace of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that process started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<u64>,
    /// Whether the mesh started it, and so may stop it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub supervised: bool,
    /// Or a network namespace bound to a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub netns: Option<PathBuf>,
}

/// A wish to register a task on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// What it serves, by name or id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// A name of its own, where it serves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Networks by name or id; none: all of its service's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Where it lives.
    pub origin: Origin,
    /// Share of new flows, in relation to the service's other tasks; 1 unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Name servers of its own, asked from its own namespace for what is not the mesh's; none: the node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// Whether its sockets may be led to a backend as they connect, so that its packets need no translation; they may
    /// unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_balancing: Option<bool>,
    /// How far it is; `running` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Its number among the service's tasks; left out: the first that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Which version of its service's program it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u64>,
}

/// What to change of a task: its own node changes it, and any node can drain it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TaskUpdate {
    /// Forward only; an earlier one is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Whether it takes part: `active`, or `drain`, and then it gets no new flows until it is `active` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// Whether it can serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Share of new flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// No new flows any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a task fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TaskStatus {
    /// When it last changed (RFC 3339).
    pub timestamp: String,
    /// How far it is.
    pub state: TaskState,
    /// What last happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub err: String,
}

/// A network that a task is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TaskNetwork {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A task's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct TaskAttachment {
    /// The network.
    pub network: TaskNetwork,
    /// `10.0.16.5/16`, IPv4 first.
    pub addresses: Vec<String>,
}

/// That a task was found sick by what it makes of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Ejected {
    /// When (RFC 3339).
    pub since: String,
    /// How often in a row it was by now: each time it is left out for longer.
    pub row: u32,
    /// How it showed.
    pub why: String,
}

impl From<model::Ejected> for Ejected {
    fn from(ejected: model::Ejected) -> Self {
        let model::Ejected { since, row, why } = ejected;
        Self { since: rfc3339(since), row, why: why.words().to_owned() }
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// When it was registered (RFC 3339).
    pub created_at: String,
    /// When it last changed (RFC 3339).
    pub updated_at: String,
    /// `web.1`, or its own.
    pub name: String,
    /// What it serves.
    #[serde(rename = "ServiceID", default, skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    /// Its number among the service's tasks, from 1.
    #[serde(default)]
    pub slot: u32,
    /// Where it runs.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// That node's name.
    pub node_name: String,
    /// How it fares.
    pub status: TaskStatus,
    /// What it should be: `running`, or `shutdown` once it was asked to stop.
    pub desired_state: TaskState,
    /// Its addresses.
    pub networks_attachments: Vec<TaskAttachment>,
    /// Whether it can serve.
    pub health: Health,
    /// What its last probes said: where its own node is asked about it alone, and a check asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskLife>,
    /// It was found sick by what it makes of connections, and is left out for now where others serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected: Option<Ejected>,
    /// Share of new flows.
    pub weight: u16,
    /// What the operator wants of it: `active` or `drain`.
    pub availability: Availability,
    /// Gets no new flows any more.
    pub draining: bool,
    /// Whether it gets new flows by the node that is asked.
    pub in_balance: bool,
    /// Since when it gets them (RFC 3339).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub in_balance_since: String,
    /// Why it gets none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How many connections it still has, as far as its node has said; only of a task that gets no new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Where it lives on its node.
    pub origin: Origin,
    /// Whether its sockets may be led to a backend as they connect.
    #[serde(default)]
    pub socket_balancing: bool,
    /// Which version of its service's program it runs, where the mesh started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<u64>,
}

impl TryFrom<Origin> for model::Origin {
    type Error = String;

    fn try_from(origin: Origin) -> Result<Self, String> {
        match origin {
            Origin { netns: Some(path), pid: None, start_time: None, supervised: false } => {
                Ok(Self::Netns { path })
            }
            Origin { netns: None, pid: Some(pid), start_time: Some(start), supervised } => {
                Ok(Self::Process { pid, start, supervised })
            }
            Origin { netns: None, pid: Some(_), start_time: None, .. } => {
                Err("a task's Pid needs its StartTime, which tells it from a later process".to_owned())
            }
            _ => Err("a task's Origin is either a Pid with its StartTime or a Netns".to_owned()),
        }
    }
}

impl From<&model::Origin> for Origin {
    fn from(origin: &model::Origin) -> Self {
        match origin {
            model::Origin::Process { pid, start, supervised } => {
                Self { pid: Some(*pid), start_time: Some(*start), supervised: *supervised, netns: None }
            }
            model::Origin::Netns { path } => Self { netns: Some(path.clone()), ..Self::default() },
        }
    }
}

impl TryFrom<TaskSpec> for TaskRequest {
    type Error = String;

    fn try_from(spec: TaskSpec) -> Result<Self, String> {
        let TaskSpec { service, name, networks, origin, weight, dns, socket_balancing, state, slot, program } =
            spec;
        Ok(Self {
            service,
            name,
            networks,
            origin: origin.try_into()?,
            weight: weight.unwrap_or(1),
            dns,
            packets_only: socket_balancing == Some(false),
            state: state.unwrap_or(TaskState::Running).into(),
            slot,
            program,
        })
    }
}

impl From<TaskUpdate> for TaskChange {
    fn from(update: TaskUpdate) -> Self {
        // Who is drained is the operator's to say, and goes another way.
        let TaskUpdate { state, availability: _, health, weight, draining, message } = update;
        let (state, health) = (state.map(Into::into), health.map(Into::into));
        Self { state, health, checked: false, ejected: None, weight, draining, message }
    }
}

impl Task {
    /// A task as the world has it, by a node that does not hear some others. `serving`: which get new flows by it.
    pub fn of(world: &model::Snapshot, masks: &Masks, serving: &Serving, task: &model::Task) -> Self {
        let full_name = world.task_name(task);
        let model::Task {
            id,
            service,
            slot,
            name: _,
            node,
            epoch: _,
            addresses,
            state,
            health,
            checked: _,
            ejected,
            weight,
            draining,
            message,
            origin,
            dns: _,
            packets_only,
            program,
            ready_since: _,
            created,
            updated,
        } = task;
        let attachments = addresses.iter().map(|(id, address)| {
            let network = world.networks.get(id);
            let lengths =
                network.into_iter().flat_map(|network| network.subnets()).map(|subnet| subnet.prefix_len());
            let lengths = lengths.chain([32, 128]);
            TaskAttachment {
                network: TaskNetwork {
                    id: id.to_string(),
                    name: network.map_or_else(String::new, |network| network.name.to_string()),
                },
                addresses: address
                    .addresses()
                    .zip(lengths)
                    .map(|(ip, length)| format!("{ip}/{length}"))
                    .collect(),
            }
        });
        let failed = matches!(*state, model::TaskState::Failed | model::TaskState::Rejected);
        let (message, err) =
            if failed { (String::new(), message.clone()) } else { (message.clone(), String::new()) };
        let in_balance = serving.has(world, task);
        let stopping = world.stops.contains_key(id) || state.is_terminal();
        Self {
            id: id.to_string(),
            created_at: rfc3339(*created),
            updated_at: rfc3339(*updated),
            name: full_name,
            service_id: service.as_ref().map_or_else(String::new, ToString::to_string),
            slot: *slot,
            node_id: node.to_string(),
            node_name: world.nodes.get(node).map_or_else(|| node.to_string(), |node| node.name.to_string()),
            status: TaskStatus { timestamp: rfc3339(*updated), state: (*state).into(), message, err },
            desired_state: if stopping { TaskState::Shutdown } else { TaskState::Running },
            networks_attachments: attachments.collect(),
            health: (*health).into(),
            state: None,
            ejected: ejected.map(Into::into),
            weight: *weight,
            availability: world.task_specs.get(id).cloned().unwrap_or_default().availability.into(),
            draining: *draining,
            in_balance,
            in_balance_since: match world.in_balance_since(task) {
                since if in_balance && since > 0 => rfc3339(since),
                _ => String::new(),
            },
            reason: if in_balance { String::new() } else { why_not_here(world, masks, task) },
            connections: world.live.get(node).and_then(|live| live.connections.get(id)).copied(),
            origin: origin.into(),
            socket_balancing: !packets_only,
            program: *program,
        }
    }
}
