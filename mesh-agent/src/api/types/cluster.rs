//! **Fact.** The managed cluster on the wire.

use mesh_core::change::TOKEN_LIFE;
use mesh_core::members;
use mesh_core::model::{NodeId, Snapshot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::cluster;

/// The member of etcd that a manager runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterMember {
    /// etcd's number for it, hexadecimal as etcdctl shows it.
    #[serde(rename = "ID")]
    pub id: String,
    /// `reachable`, `unreachable`, or `joining` while it has no vote.
    pub status: String,
    /// Whether it leads the others.
    pub leader: bool,
    /// etcd's version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The database's size, bytes.
    pub size: u64,
    /// How far it has written down what the members agreed on.
    pub raft_index: u64,
    /// What it says is wrong: `NOSPACE`, `CORRUPT`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterNode {
    /// The node.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Its name.
    pub hostname: String,
    /// Where other nodes reach it.
    pub addr: String,
    /// `manager` or `worker`, as it is wanted.
    pub role: String,
    /// What a manager that was asked sees of its member of etcd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<ClusterMember>,
}

/// Whose certificates nodes trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterAuthority {
    /// Their certificates (PEM), the one that signs first.
    pub roots: String,
    /// Whether one takes the place of another now.
    pub rotating: bool,
    /// How many nodes have certificates.
    pub nodes: u64,
    /// How many of these use one of the authority that signs; 0 when it was never replaced.
    pub renewed: u64,
    /// Whether another authority takes the place of that of etcd's members now.
    pub members_rotating: bool,
    /// How many steps that is for all managers together; 0 when it was never replaced.
    pub member_steps: u64,
    /// How many of these are done.
    pub member_steps_done: u64,
}

/// Which authority is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClusterRotation {
    /// That of etcd's members, and not that of nodes.
    #[serde(default)]
    pub members: bool,
}

/// The cluster that keeps the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// What the node that was asked is: `manager` or `worker`.
    pub role: String,
    /// Grows when the records are moved, restored or saved.
    pub generation: u64,
    /// The leader's name; empty: none is known.
    pub leader: String,
    /// How many managers have a vote.
    pub voters: u64,
    /// How many of these answer.
    pub reachable: u64,
    /// How large the largest database is, bytes.
    pub size: u64,
    /// How large it may grow, bytes.
    pub quota: u64,
    /// What members say is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// What is not as it should be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub warning: String,
    /// What a change of the managers waits for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits: String,
    /// All nodes, by name.
    pub nodes: Vec<ClusterNode>,
}

impl Cluster {
    /// As this node sees it; `None`: it belongs to none.
    pub fn of(cluster: &cluster::Cluster, world: &Snapshot) -> Option<Self> {
        let role = cluster.role()?;
        let seen = cluster.seen();
        let leader = seen.leader();
        let member_of = |id: &NodeId, address| {
            let is_its = |member: &&cluster::MemberSeen| {
                member.node.as_ref().map_or(member.address == Some(address), |node| node == id)
            };
            seen.members.iter().find(is_its)
        };
        let mut nodes: Vec<_> = world
            .nodes
            .values()
            .map(|node| ClusterNode {
                node_id: node.id.to_string(),
                hostname: node.name.to_string(),
                addr: node.address.to_string(),
                role: if world.is_manager(&node.id) { "manager" } else { "worker" }.to_owned(),
                member: member_of(&node.id, node.address).map(|member| ClusterMember::of(member, leader)),
            })
            .collect();
        nodes.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        let (voters, reachable) = seen.votes();
        let leads = |node: &&ClusterNode| node.member.as_ref().is_some_and(|member| member.leader);
        let healths = seen.members.iter().filter_map(|member| member.health.as_ref());
        Some(Self {
            role: role.to_string(),
            generation: world.generation,
            leader: nodes.iter().find(leads).map(|node| node.hostname.clone()).unwrap_or_default(),
            voters: voters as u64,
            reachable: reachable as u64,
            size: healths.map(|health| health.size).max().unwrap_or(0),
            quota: cluster.quota(),
            alarms: seen.alarms(),
            warning: members::warning(voters, reachable).unwrap_or_default(),
            waits: seen.waits.clone().unwrap_or_default(),
            nodes,
        })
    }
}

impl ClusterMember {
    fn of(member: &cluster::MemberSeen, leader: Option<u64>) -> Self {
        let status = match (&member.health, member.learner) {
            (Some(_), false) => "reachable",
            (_, true) => "joining",
            (None, false) => "unreachable",
        };
        let health = member.health.as_ref();
        Self {
            id: format!("{:x}", member.id),
            status: status.to_owned(),
            leader: health.is_some() && leader == Some(member.id),
            version: health.map(|health| health.version.clone()).unwrap_or_default(),
            size: health.map_or(0, |health| health.size),
            raft_index: health.map_or(0, |health| health.index),
            alarms: health.map(|health| health.alarms.clone()).unwrap_or_default(),
        }
    }
}

/// What an alarm of etcd's means, and what to do.
pub fn alarm_in_words(alarm: &str) -> String {
    match alarm {
        "NOSPACE" => "the database of the records is full (alarm NOSPACE), so nothing can be changed: see who writes so \
                      much, then compact and defragment it, and run `etcdctl alarm disarm`"
            .to_owned(),
        "CORRUPT" => "the managers' copies of the records differ (alarm CORRUPT): demote the one that differs, remove \
                      it, and let it join again"
            .to_owned(),
        other => format!("etcd says: alarm {other}"),
    }
}

/// Which token is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClusterTokenRequest {
    /// What it makes of a node: `worker` or `manager`.
    pub role: String,
    /// How long it is good, seconds; 0: until it is replaced.
    #[serde(default = "a_day")]
    pub expiry: u64,
    /// How many nodes may join with it; 0: any number.
    #[serde(default)]
    pub uses: u32,
    /// Whether all earlier ones of the role end now.
    #[serde(default)]
    pub rotate: bool,
}

fn a_day() -> u64 {
    TOKEN_LIFE.as_secs()
}

/// What other nodes join with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterToken {
    /// `TOKEN@HOST:PORT`
    pub token: String,
}

/// Which cluster to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClusterJoin {
    /// `TOKEN@HOST:PORT`
    pub token: String,
}

/// How to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClusterLeave {
    /// A manager, too, and when the others cannot be told.
    #[serde(default)]
    pub force: bool,
}

/// All records, as a file has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClusterBackup {
    /// The file's content.
    pub content: String,
}
