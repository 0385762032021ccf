//! **Fact.** Networks on the wire: Docker's `POST /networks/create` and `GET /networks/{id}`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mesh_core::change::NetworkRequest;
use mesh_core::model;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{is_false, rfc3339};

/// The option that encrypts a network between nodes; its value does not matter unless it is `false`.
const ENCRYPTED: &str = "encrypted";
/// The option for a smaller MTU.
const MTU: &str = "com.docker.network.driver.mtu";

/// A wish for a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// A DNS label.
    pub name: String,
    /// `overlay`, the only one there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Its subnets; without one, a free /16 is chosen.
    #[serde(rename = "IPAM", default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// Without a way to the world.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Accepted for Docker's sake: every network can be attached to.
    #[serde(default, skip_serializing_if = "is_false")]
    pub attachable: bool,
    /// `encrypted`, `com.docker.network.driver.mtu`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Free text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A network's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ipam {
    /// One per family.
    #[serde(default)]
    pub config: Vec<Subnet>,
}

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Subnet {
    /// `10.1.0.0/16`
    #[schema(value_type = String, example = "10.1.0.0/16")]
    pub subnet: IpNet,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    /// Never changes.
    #[serde(rename = "ID")]
    pub id: String,
    /// Unique among networks.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// `swarm`, as Docker says for networks that span nodes.
    pub scope: String,
    /// `overlay`
    pub driver: String,
    /// Its subnets.
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    /// Without a way to the world.
    pub internal: bool,
    /// Always so.
    pub attachable: bool,
    /// What was asked for with `--opt`.
    pub options: BTreeMap<String, String>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
    /// Its identifier in the tunnels.
    #[serde(rename = "VNI")]
    pub vni: u32,
    /// By name: with `?verbose` only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, NetworkService>,
    /// Nodes that hold addresses of it: with `?verbose` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<NetworkPeer>,
}

/// A service as its network sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkService {
    /// Its virtual address; empty for dnsrr.
    #[serde(rename = "VIP")]
    pub vip: String,
    /// `Target: 80, Publish: 8080`
    pub ports: Vec<String>,
    /// Who serves.
    pub tasks: Vec<NetworkServiceTask>,
}

/// A task as its network sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkServiceTask {
    /// `web.1`
    pub name: String,
    /// The task's id.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// Its address.
    #[serde(rename = "EndpointIP")]
    pub endpoint_ip: String,
    /// `Host IP`: where its node is reached.
    pub info: BTreeMap<String, String>,
}

/// A node that takes part in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkPeer {
    /// The node's name.
    pub name: String,
    /// Where it is reached.
    #[serde(rename = "IP")]
    pub ip: String,
}

impl TryFrom<NetworkSpec> for NetworkRequest {
    type Error = String;

    fn try_from(spec: NetworkSpec) -> Result<Self, String> {
        let NetworkSpec { name, driver, ipam, internal, attachable: _, options, labels } = spec;
        if let Some(driver) = driver.filter(|driver| driver != "overlay") {
            return Err(format!("invalid driver value ({driver}): every network is an 'overlay'"));
        }
        let mut request = Self {
            name,
            subnets: ipam.unwrap_or_default().config.into_iter().map(|config| config.subnet).collect(),
            internal,
            encrypted: false,
            mtu: None,
            labels,
        };
        for (key, value) in options {
            match key.as_str() {
                ENCRYPTED => request.encrypted = value != "false",
                MTU => {
                    let mtu =
                        value.parse().map_err(|_| format!("invalid value for option {MTU}: '{value}'"))?;
                    request.mtu = Some(mtu);
                }
                _ => {
                    return Err(format!(
                        "unknown network option '{key}': there are '{ENCRYPTED}' and '{MTU}'"
                    ));
                }
            }
        }
        Ok(request)
    }
}

impl From<&model::Network> for Network {
    fn from(network: &model::Network) -> Self {
        let subnets = network.subnets().map(|subnet| Subnet { subnet }).collect();
        let model::Network { id, name, v4: _, v6: _, vni, mtu, internal, encrypted, labels, created } =
            network;
        let mut options = BTreeMap::new();
        if *encrypted {
            options.insert(ENCRYPTED.to_owned(), String::new());
        }
        if let Some(mtu) = mtu {
            options.insert(MTU.to_owned(), mtu.to_string());
        }
        Self {
            id: id.to_string(),
            name: name.to_string(),
            created_at: rfc3339(*created),
            scope: "swarm".to_owned(),
            driver: "overlay".to_owned(),
            ipam: Ipam { config: subnets },
            internal: *internal,
            attachable: true,
            options,
            labels: labels.clone(),
            vni: vni.0,
            services: BTreeMap::new(),
            peers: Vec::new(),
        }
    }
}

impl Network {
    /// With who is in it, as `docker network inspect --verbose` shows.
    pub fn verbose(world: &model::Snapshot, network: &model::Network) -> Self {
        let mut view = Self::from(network);
        for service in world.services.values() {
            let Some(attachment) = service.attachment(&network.id) else {
                continue;
            };
            let ports =
                service.ports.iter().map(|p| format!("Target: {}, Publish: {}", p.target, p.published));
            let tasks = world.tasks_of(&service.id).filter_map(|task| {
                let address = task.addresses.get(&network.id)?;
                let host =
                    world.nodes.get(&task.node).map(|node| ("Host IP".to_owned(), node.address.to_string()));
                Some(NetworkServiceTask {
                    name: world.task_name(task),
                    endpoint_id: task.id.to_string(),
                    endpoint_ip: address.v4.to_string(),
                    info: host.into_iter().collect(),
                })
            });
            let vip = attachment.vip.map_or_else(String::new, |vip| vip.v4.to_string());
            let seen = NetworkService { vip, ports: ports.collect(), tasks: tasks.collect() };
            view.services.insert(service.name.to_string(), seen);
        }
        let holds = |node: &model::NodeId| {
            world.blocks.iter().any(|((id, _), owner)| *id == network.id && owner == node)
        };
        view.peers = world
            .nodes
            .values()
            .filter(|node| holds(&node.id))
            .map(|node| NetworkPeer { name: node.name.to_string(), ip: node.address.to_string() })
            .collect();
        view
    }
}
