//! **Fact.** A node's state and explanations on the wire.

use std::collections::BTreeMap;

use mesh_core::explain;
use mesh_core::model::{NodeId, Snapshot};
use mesh_core::replicas;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Cluster, Counters, InKernel, NodeStatus, Protocol};
use crate::dataplane::{self, Found};
use crate::status;

/// The connection to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct StoreView {
    /// Watching, nothing missed.
    pub connected: bool,
    /// `local`, …
    pub engine: String,
    /// Which store.
    pub cluster: String,
    /// The newest revision that was seen.
    pub revision: u64,
    /// Why it is not connected, or what is held back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// Who keeps the records, in a managed cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Cluster>,
}

/// A part of the kernel that the agent keeps as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Plane {
    /// How many rounds there were.
    pub rounds: u64,
    /// How many objects all rounds touched.
    pub changed: u64,
    /// How long the last round took, microseconds.
    pub last_micros: u64,
    /// What went wrong in the last round, by object.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, String>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Problem {
    /// `network app`, `node n2`
    pub about: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// A feature of the kernel that the data plane likes to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Feature {
    /// As in `dataplane.without`; `ebpf` is all of it (`dataplane.mode`).
    pub name: String,
    /// `used`, `missing`, or `off` where the configuration says so.
    pub state: String,
    /// Why it is missing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is done where it is not used.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instead: String,
}

impl From<&dataplane::Feature> for Feature {
    fn from(feature: &dataplane::Feature) -> Self {
        let dataplane::Feature { name, found, instead } = feature;
        let (state, reason, instead) = match found {
            Found::Used => ("used", "", ""),
            Found::Missing(why) => ("missing", why.as_str(), *instead),
            Found::Off => ("off", "", *instead),
        };
        let [name, state, reason, instead] = [name, state, reason, instead].map(str::to_owned);
        Self { name, state, reason, instead }
    }
}

/// Another node, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NodeHealth {
    /// Its name.
    pub name: String,
    /// As in the list of nodes: `ready`, `down`, `disconnected`, `leaving` or `unknown`.
    pub state: String,
    /// Everything up to this revision is in its kernel.
    pub applied_revision: u64,
    /// What is wrong on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A node's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// Whether this node does all that it should.
    pub healthy: bool,
    /// This node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Its name; empty while it is not in the mesh.
    pub node_name: String,
    /// The agent's version.
    pub version: String,
    /// Everything up to this revision is in this node's kernel.
    pub applied_revision: u64,
    /// The newest revision that this node knows of and that changes what nodes do.
    pub wanted_revision: u64,
    /// The store.
    pub store: StoreView,
    /// By name.
    pub planes: BTreeMap<String, Plane>,
    /// What is not as it should be on this node.
    pub problems: Vec<Problem>,
    /// Which features of the kernel the data plane uses.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// What the data plane in use cannot do.
    pub limits: Vec<String>,
    /// What the data plane counts, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// What services are to have and cannot be given, whichever node is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Problem>,
    /// All other nodes.
    pub nodes: Vec<NodeHealth>,
}

impl Status {
    /// The state of a node that has this world.
    pub fn of(world: &Snapshot, node: &NodeId, status: &status::Status) -> Self {
        let status::Status {
            planned: _,
            applied,
            store,
            planes,
            silent,
            problems,
            features,
            limits,
            verified: _,
        } = status;
        let status::StoreHealth { connected, engine, cluster, rev, problem } = store;
        let planes: BTreeMap<_, _> =
            planes.iter().map(|(name, plane)| ((*name).to_owned(), plane.into())).collect();
        let me = world.nodes.get(node);
        let sound = *connected
            && problem.is_none()
            && problems.is_empty()
            && me.is_some()
            && planes.values().all(|plane: &Plane| plane.errors.is_empty());
        let others = world.nodes.values().filter(|other| other.id != *node).map(|other| {
            let status = NodeStatus::of(world, other, None, silent.nodes.get(&other.id).copied(), None);
            let NodeStatus {
                state,
                message: _,
                addr: _,
                applied_revision,
                down_by: _,
                agent_age: _,
                problems,
            } = status;
            NodeHealth { name: other.name.to_string(), state, applied_revision, problems }
        });
        let shortages = world.services.values().flat_map(|service| {
            replicas::shortages(world, service).into_iter().map(
                |replicas::Shortage { object, reason, cure }| Problem {
                    about: format!("service {}: {object}", service.name),
                    message: format!("{reason}; {cure}"),
                },
            )
        });
        Self {
            healthy: sound,
            node_id: node.to_string(),
            node_name: me.map_or_else(String::new, |me| me.name.to_string()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied_revision: applied.0,
            wanted_revision: world.changed.0,
            store: StoreView {
                connected: *connected,
                engine: engine.clone(),
                cluster: cluster.clone(),
                revision: rev.0,
                problem: problem.clone().unwrap_or_default(),
                managed: None,
            },
            planes,
            problems: problems
                .iter()
                .map(|problem| Problem { about: problem.about.clone(), message: problem.message.clone() })
                .collect(),
            features: features.iter().map(Feature::from).collect(),
            limits: limits.clone(),
            counters: None,
            shortages: shortages.collect(),
            nodes: others.collect(),
        }
    }

    /// With one thing more that is not as it should be.
    pub fn add_problem(&mut self, about: &str, message: String) {
        self.problems.push(Problem { about: about.to_owned(), message });
        self.healthy = false;
    }
}

impl From<&status::PlaneStatus> for Plane {
    fn from(plane: &status::PlaneStatus) -> Self {
        let status::PlaneStatus { last, rounds, changed, micros, total_micros: _ } = plane;
        Self { rounds: *rounds, changed: *changed, last_micros: *micros, errors: last.errors.clone() }
    }
}

/// A question about a flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ExplainRequest {
    /// Who sends: an address, or a task by name or id; with its port, such as `10.0.16.2:4000`, its very flow is meant.
    pub client: String,
    /// To whom: an address, or a service by name.
    pub destination: String,
    /// To which port.
    pub port: u16,
    /// `tcp` unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The node where the flow enters the mesh: the client task's, else this one, unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// A task and its share of new flows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Share {
    /// `web.1`
    pub task: String,
    /// Where the flow would go.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// On which node.
    pub node: String,
    /// Of all new flows, 0 to 1.
    pub share: f64,
}

/// A task that gets no new flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Excluded {
    /// `web.2`
    pub task: String,
    /// Why.
    pub reason: String,
}

/// Why a flow goes where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Explanation {
    /// What happens, in one sentence.
    pub verdict: String,
    /// Whether the flow gets nowhere.
    pub refused: bool,
    /// The address and port that were resolved.
    pub destination: String,
    /// What it meets; empty: nothing of the mesh.
    pub frontend: String,
    /// The service.
    pub service: String,
    /// How tasks are chosen.
    pub policy: String,
    /// Who can get it.
    pub backends: Vec<Share>,
    /// Who cannot.
    pub excluded: Vec<Excluded>,
    /// What the kernel of the node that was asked does, where that can be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<InKernel>,
}

impl Explanation {
    /// What the decision says of a flow.
    pub fn of(flow: &explain::Flow, explanation: explain::Explanation) -> Self {
        let explain::Explanation { frontend, service, policy, backends, excluded, verdict, refused } =
            explanation;
        let shares = backends.into_iter().map(|share| {
            let explain::Share { task, address, port, node, share } = share;
            Share { task, address: address.to_string(), port, node, share }
        });
        let to = std::net::SocketAddr::new(flow.destination, flow.port);
        Self {
            verdict,
            refused,
            destination: format!("{to}/{}", flow.protocol),
            frontend: frontend.unwrap_or_default(),
            service: service.unwrap_or_default(),
            policy,
            backends: shares.collect(),
            excluded: excluded.into_iter().map(|(task, reason)| Excluded { task, reason }).collect(),
            kernel: None,
        }
    }
}
