//! **Decision.** How the world is written down: one key per record, one writer per key.
//!
//! | key | writer | value |
//! |---|---|---|
//! | `net/<id>`, `idx/net/<name>` | API | [`Network`], its id |
//! | `svc/<id>`, `idx/svc/<name>` | API | [`Service`], its id |
//! | `nodespec/<id>`, `taskspec/<id>`, `stop/<task>` | API | [`NodeSpec`], [`TaskSpec`], `{}` |
//! | `node/<id>`, `idx/node/<name>` | the node | [`Node`], its id |
//! | `live/<id>` | the node, under a lease | [`Live`] |
//! | `down/<id>` | managers | [`Down`] |
//! | `task/<id>`, `idx/task/<name>` | the task's node | [`Task`], its id |
//! | `claim/vni/<n>`, `claim/vip/<net>/<place>` | API | [`Claim`] |
//! | `claim/block/<net>/<n>` | the node | [`Claim`] |
//! | `claim/slot/<svc>/<n>` | the task's node | [`Claim`] |
//! | `guard/subnets`, `guard/ports` | API | what each such change bumps under compare-and-set |
//! | `guard/node/<id>` | the node | the same for the blocks and addresses that it gives out |
//! | `guard/replicas/<svc>` | who tells tasks to stop | the same for the tasks of a service whose command the mesh runs |
//! | `meta/generation` | who moves, restores or saves the records | a number that grows with each such act |
//! | `csr/<id>`, `cert/<id>` | the node, a manager | what a node that becomes a manager asks for and gets |
//! | `token/<role>` | API | [`Tokens`] to join with |
//! | `authority/rotation` | API, managers | [`Rotation`] |
//! | `ask/verification` | API | [`Verification`] |
//! | `authority/members` | API, managers | [`MemberRotation`] |
//! | `identity/<id>`, `denied/<serial>` | managers | [`Identity`], [`Denied`] |
//!
//! Claims are never under a lease. Fields that a newer version adds are ignored; a value that cannot be
//! read is set aside as poison and never stops the rest.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::kv::{KeyValue, Rev};
use crate::model::{
    Block, Denied, Down, Identity, Live, MemberRotation, Name, Network, NetworkId, Node, NodeId, NodeSpec,
    Role, Rotation, Service, ServiceId, Snapshot, Task, TaskId, TaskSpec, Timestamp, Tokens, Verification,
    Vni, moments,
};

/// Who holds something that exists once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The id of the holder.
    pub owner: Arc<str>,
    /// Set when it was given back: it waits until every live node has applied that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Timestamp>,
}

impl Claim {
    /// A claim's value, as stored.
    pub fn held(owner: &str) -> String {
        to_json(&Self { owner: owner.into(), released: None })
    }

    /// The value of a claim that was given back.
    pub fn given_back(owner: &str, at: Timestamp) -> String {
        to_json(&Self { owner: owner.into(), released: Some(at) })
    }
}

/// Which authority nodes need certificates of.
pub const ROTATION: &str = "authority/rotation";
/// What all nodes are asked to compare; nothing that anything is planned by.
pub const VERIFICATION: &str = "ask/verification";
/// Which authority etcd's members need certificates of.
pub const MEMBER_ROTATION: &str = "authority/members";
/// Guards overlap checks of subnets.
pub const GUARD_SUBNETS: &str = "guard/subnets";
/// Guards conflict checks of published ports.
pub const GUARD_PORTS: &str = "guard/ports";

/// Which generation of the records this is. A store of a later one may be behind, and lack what was known: it was meant.
pub const GENERATION: &str = "meta/generation";
/// `csr/<id>`
pub fn signing_request(id: &NodeId) -> String {
    format!("csr/{id}")
}
/// `cert/<id>`
pub fn certificate(id: &NodeId) -> String {
    format!("cert/{id}")
}

/// The node whose record that is: of what says that it is there, and what is wanted of it. Not what it holds: its tasks and
/// blocks go when it is not there (`change::janitor`).
pub fn node_of<'a>(key: &'a str, value: &'a str) -> Option<&'a str> {
    if key.starts_with("idx/node/") {
        return Some(value);
    }
    ["node/", "nodespec/", "down/", "guard/node/", "csr/", "cert/"]
        .iter()
        .find_map(|kind| key.strip_prefix(kind))
}

/// The generation that is written in a listing; 0: none ever was.
pub fn generation<'a>(kvs: impl IntoIterator<Item = &'a KeyValue>) -> u64 {
    let mut kvs = kvs.into_iter().filter(|kv| *kv.key == *GENERATION);
    kvs.next().and_then(|kv| kv.value.parse().ok()).unwrap_or(0)
}

/// The generation after one. Time makes two that begin from the same old backup differ: milliseconds since 1970.
pub fn generation_after(generation: u64, now: Timestamp) -> u64 {
    (generation + 1).max(now)
}

/// Guards a node's blocks and addresses: `guard/node/<id>`
pub fn node_guard(id: &NodeId) -> String {
    format!("guard/node/{id}")
}
/// Guards which tasks of a service are told to stop: `guard/replicas/<svc>`
pub fn replicas_guard(id: &ServiceId) -> String {
    format!("guard/replicas/{id}")
}
/// `net/<id>`
pub fn network(id: &NetworkId) -> String {
    format!("net/{id}")
}
/// `idx/net/<name>`
pub fn network_name(name: &Name) -> String {
    format!("idx/net/{name}")
}
/// `svc/<id>`
pub fn service(id: &ServiceId) -> String {
    format!("svc/{id}")
}
/// `idx/svc/<name>`
pub fn service_name(name: &Name) -> String {
    format!("idx/svc/{name}")
}
/// `node/<id>`
pub fn node(id: &NodeId) -> String {
    format!("node/{id}")
}
/// `idx/node/<name>`
pub fn node_name(name: &Name) -> String {
    format!("idx/node/{name}")
}
/// `nodespec/<id>`
pub fn node_spec(id: &NodeId) -> String {
    format!("nodespec/{id}")
}
/// `live/<id>`
pub fn live(id: &NodeId) -> String {
    format!("live/{id}")
}
/// `down/<id>`
pub fn down(id: &NodeId) -> String {
    format!("down/{id}")
}
/// `task/<id>`
pub fn task(id: &TaskId) -> String {
    format!("task/{id}")
}
/// `idx/task/<name>`
pub fn task_index(name: &Name) -> String {
    format!("idx/task/{name}")
}
/// `taskspec/<id>`
pub fn task_spec(id: &TaskId) -> String {
    format!("taskspec/{id}")
}
/// `stop/<task>`
pub fn stop(id: &TaskId) -> String {
    format!("stop/{id}")
}
/// `claim/vni/<n>`
pub fn vni_claim(vni: Vni) -> String {
    format!("claim/vni/{vni}")
}
/// `claim/vip/<net>/<place>`
pub fn vip_claim(network: &NetworkId, place: u32) -> String {
    format!("claim/vip/{network}/{place}")
}
/// `claim/block/<net>/<n>`
pub fn block_claim(network: &NetworkId, block: Block) -> String {
    format!("claim/block/{network}/{}", block.0)
}
/// `claim/slot/<svc>/<n>`
pub fn slot_claim(service: &ServiceId, slot: u32) -> String {
    format!("claim/slot/{service}/{slot}")
}

/// What keys of tokens begin with.
pub const TOKENS: &str = "token/";

/// `token/<role>`
pub fn tokens(role: Role) -> String {
    format!("token/{role}")
}
/// `identity/<id>`
pub fn identity(id: &NodeId) -> String {
    format!("identity/{id}")
}
/// `denied/<serial>`
pub fn denied(serial: &str) -> String {
    format!("denied/{serial}")
}

/// A value as JSON. Our records have string keys only and no map that could fail.
pub fn to_json<T: Serialize>(record: &T) -> String {
    serde_json::to_string(record).unwrap_or_else(|error| unreachable!("a record is always JSON: {error}"))
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// `net/`
    Network(Box<Network>),
    /// `svc/`
    Service(Box<Service>),
    /// `task/`
    Task(Box<Task>),
    /// `node/`
    Node(Box<Node>),
    /// `nodespec/`
    NodeSpec(NodeId, NodeSpec),
    /// `taskspec/`
    TaskSpec(TaskId, TaskSpec),
    /// `live/`
    Live(NodeId, Live),
    /// `down/`
    Down(NodeId, Down),
    /// `claim/block/`
    Block(NetworkId, Block, NodeId),
    /// `claim/`, the others
    Claim(Claim),
    /// `stop/`
    Stop(TaskId),
    /// `token/`
    Tokens(Role, Tokens),
    /// `identity/`
    Identity(NodeId, Identity),
    /// `denied/`
    Denied(String, Denied),
    /// `authority/rotation`
    Rotation(Rotation),
    /// `ask/verification`
    Verification(Verification),
    /// `authority/members`
    MemberRotation(MemberRotation),
    /// An index, a guard (only its revision counts), or what a newer version writes.
    Other,
}

/// Reads one key; `Err` says in words why the value makes no sense.
pub fn decode(key: &str, value: &str) -> Result<Record, String> {
    let Some((kind, rest)) = key.split_once('/') else {
        return Ok(Record::Other);
    };
    Ok(match kind {
        "net" => {
            let network: Network = json(value)?;
            same(rest, network.id.as_str())?;
            network.check()?;
            Record::Network(Box::new(network))
        }
        "svc" => {
            let service: Service = json(value)?;
            same(rest, service.id.as_str())?;
            service.check()?;
            Record::Service(Box::new(service))
        }
        "task" => {
            let task: Task = json(value)?;
            same(rest, task.id.as_str())?;
            task.check()?;
            Record::Task(Box::new(task))
        }
        "node" => {
            let node: Node = json(value)?;
            same(rest, node.id.as_str())?;
            node.check()?;
            Record::Node(Box::new(node))
        }
        "nodespec" => {
            let spec: NodeSpec = json(value)?;
            moments(&[spec.drained, spec.undrained])?;
            Record::NodeSpec(NodeId::new(rest), spec)
        }
        "taskspec" => {
            let spec: TaskSpec = json(value)?;
            moments(&[spec.undrained])?;
            Record::TaskSpec(TaskId::new(rest), spec)
        }
        "live" => Record::Live(NodeId::new(rest), json(value)?),
        "down" => Record::Down(NodeId::new(rest), json(value)?),
        "token" => Record::Tokens(rest.parse()?, json(value)?),
        "identity" => Record::Identity(NodeId::new(rest), json(value)?),
        "denied" => Record::Denied(rest.to_owned(), json(value)?),
        "authority" if key == ROTATION => Record::Rotation(json(value)?),
        "ask" if key == VERIFICATION => Record::Verification(json(value)?),
        "authority" if key == MEMBER_ROTATION => Record::MemberRotation(json(value)?),
        "stop" => Record::Stop(TaskId::new(rest)),
        "claim" => {
            let claim: Claim = json(value)?;
            match rest.strip_prefix("block/").and_then(|rest| rest.split_once('/')) {
                Some((network, number)) => {
                    let number = number.parse().map_err(|_| format!("'{number}' is no block number"))?;
                    Record::Block(NetworkId::new(network), Block(number), NodeId::new(claim.owner))
                }
                None => Record::Claim(claim),
            }
        }
        _ => Record::Other,
    })
}

/// The value of a record as a world has it in force; none: it has none, or holds no such records.
pub fn in_force(world: &Snapshot, key: &str) -> Option<String> {
    let (kind, rest) = key.split_once('/')?;
    match kind {
        "net" => world.networks.get(rest).map(|network| to_json(&**network)),
        "svc" => world.services.get(rest).map(|service| to_json(&**service)),
        "task" => world.tasks.get(rest).map(|task| to_json(&**task)),
        "node" => world.nodes.get(rest).map(|node| to_json(&**node)),
        "nodespec" => world.specs.get(rest).map(to_json),
        "taskspec" => world.task_specs.get(rest).map(to_json),
        "down" => world.downs.get(rest).map(to_json),
        "identity" => world.identities.get(rest).map(to_json),
        "denied" => world.denied.get(rest).map(to_json),
        "token" => world.tokens.get(&rest.parse::<Role>().ok()?).map(to_json),
        "authority" if key == ROTATION => world.rotation.as_ref().map(to_json),
        "authority" if key == MEMBER_ROTATION => world.member_rotation.as_ref().map(to_json),
        "stop" => world.stops.get(rest).map(|_| "{}".to_owned()),
        "claim" => match rest.strip_prefix("block/").and_then(|rest| rest.split_once('/')) {
            Some((network, number)) => {
                let place = (NetworkId::new(network), Block(number.parse().ok()?));
                world.blocks.get(&place).map(|node| Claim::held(node.as_str()))
            }
            None => world.claims.get(key).map(|held| to_json(&held.claim)),
        },
        _ => None,
    }
}

fn json<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| error.to_string())
}

fn same(key: &str, id: &str) -> Result<(), String> {
    if key == id { Ok(()) } else { Err(format!("the key says id '{key}', the record '{id}'")) }
}

/// Whether a change of this key is a change of what nodes must do, and not only a sign of life.
pub fn matters(key: &str) -> bool {
    !key.starts_with("live/") && key != VERIFICATION
}

/// A claim as a snapshot holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldClaim {
    /// Who and whether still.
    pub claim: Claim,
    /// When it was last written.
    pub modified: Rev,
}
