//! **Fact.** How services of the wire and services of the model become each other, field by field.

use std::time::Duration;

use mesh_core::change;
use mesh_core::model;

use super::{
    Affinity, Endpoint, EndpointSpec, NetworkTarget, PortConfig, PortName, PortRef, Service, ServiceSpec,
    ServiceStatus, ServiceUpdate, VirtualIp,
};
use crate::api::types::{
    AffinityMode, Balancing, EndpointMode, Locality, ReturnPath, Version, format_duration, parse_duration,
    rfc3339,
};

/// How long flows of a leaving task may take to end, unless said otherwise.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client is remembered, unless said otherwise.
const AFFINITY_TIMEOUT: Duration = Duration::from_secs(600);

impl From<PortRef> for change::PortPattern {
    fn from(port: PortRef) -> Self {
        Self {
            published: port.published_port,
            target: port.target_port,
            protocol: port.protocol.into(),
            mode: port.publish_mode.into(),
        }
    }
}

impl TryFrom<PortConfig> for model::PublishedPort {
    type Error = String;

    fn try_from(port: PortConfig) -> Result<Self, String> {
        let PortConfig { protocol, target_port, published_port, publish_mode, host_ip, nodes, allow } = port;
        let nodes = nodes.iter().map(|name| name.parse()).collect::<Result<_, model::InvalidName>>();
        Ok(Self {
            published: published_port,
            target: target_port,
            protocol: protocol.into(),
            mode: publish_mode.into(),
            host_ip,
            nodes: nodes.map_err(|error| error.to_string())?,
            allow,
        })
    }
}

impl From<&model::PublishedPort> for PortConfig {
    fn from(port: &model::PublishedPort) -> Self {
        let model::PublishedPort { published, target, protocol, mode, host_ip, nodes, allow } = port;
        Self {
            protocol: (*protocol).into(),
            target_port: *target,
            published_port: *published,
            publish_mode: (*mode).into(),
            host_ip: host_ip.clone(),
            nodes: nodes.iter().map(ToString::to_string).collect(),
            allow: allow.clone(),
        }
    }
}

impl TryFrom<PortName> for model::PortName {
    type Error = String;

    fn try_from(port: PortName) -> Result<Self, String> {
        let PortName { name, target_port, protocol } = port;
        let name = name.parse().map_err(|error: model::InvalidName| error.to_string())?;
        Ok(Self { name, port: target_port, protocol: protocol.into() })
    }
}

impl From<&model::PortName> for PortName {
    fn from(port: &model::PortName) -> Self {
        let model::PortName { name, port, protocol } = port;
        Self { name: name.to_string(), target_port: *port, protocol: (*protocol).into() }
    }
}

fn port_names(names: Vec<PortName>) -> Result<Vec<model::PortName>, String> {
    names.into_iter().map(TryInto::try_into).collect()
}

impl From<NetworkTarget> for change::AttachmentRequest {
    fn from(target: NetworkTarget) -> Self {
        let NetworkTarget { target, aliases } = target;
        Self { network: target, aliases }
    }
}

impl TryFrom<Affinity> for model::Affinity {
    type Error = String;

    fn try_from(affinity: Affinity) -> Result<Self, String> {
        match affinity {
            Affinity { mode: AffinityMode::None, timeout: None } => Ok(Self::None),
            Affinity { mode: AffinityMode::None, .. } => {
                Err("an affinity of 'none' has no timeout".to_owned())
            }
            Affinity { mode: AffinityMode::ClientIp, timeout } => {
                let timeout = timeout.as_deref().map(parse_duration).transpose()?.unwrap_or(AFFINITY_TIMEOUT);
                Ok(Self::ClientIp { timeout })
            }
        }
    }
}

impl From<model::Affinity> for Affinity {
    fn from(affinity: model::Affinity) -> Self {
        match affinity {
            model::Affinity::None => Self { mode: AffinityMode::None, timeout: None },
            model::Affinity::ClientIp { timeout } => {
                Self { mode: AffinityMode::ClientIp, timeout: Some(format_duration(timeout)) }
            }
        }
    }
}

/// `default`, or zero: as long as the data plane does by itself.
fn idle(text: &str) -> Result<Option<Duration>, String> {
    if text == "default" {
        return Ok(None);
    }
    Ok(Some(parse_duration(text)?).filter(|timeout| !timeout.is_zero()))
}

impl TryFrom<ServiceSpec> for change::ServiceRequest {
    type Error = String;

    fn try_from(spec: ServiceSpec) -> Result<Self, String> {
        let ServiceSpec {
            name,
            labels,
            networks,
            endpoint_spec,
            balancing,
            affinity,
            locality,
            drain_timeout,
            return_path,
            idle_timeout,
            slow_start,
            healthcheck,
            passive_health,
            publish_not_ready,
            port_names: names,
            program,
        } = spec;
        let EndpointSpec { mode, ports } = endpoint_spec;
        Ok(Self {
            name,
            networks: networks.into_iter().map(Into::into).collect(),
            mode: mode.unwrap_or(EndpointMode::Vip).into(),
            ports: ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            balancing: balancing.unwrap_or(Balancing::Random).into(),
            affinity: affinity.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            locality: locality.unwrap_or(Locality::Spread).into(),
            drain_timeout: drain_timeout.as_deref().map(parse_duration).transpose()?.unwrap_or(DRAIN_TIMEOUT),
            return_path: return_path.unwrap_or(ReturnPath::Tunnel).into(),
            idle_timeout: idle_timeout.as_deref().map(idle).transpose()?.flatten(),
            slow_start: slow_start.as_deref().map(parse_duration).transpose()?.unwrap_or_default(),
            health: healthcheck.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            passive_health: passive_health.unwrap_or(true),
            discovery: model::Discovery { publish_not_ready, port_names: port_names(names)? },
            program: program.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            labels,
        })
    }
}

impl TryFrom<ServiceUpdate> for change::ServiceUpdate {
    type Error = String;

    fn try_from(update: ServiceUpdate) -> Result<Self, String> {
        let ServiceUpdate {
            version,
            publish_add,
            publish_rm,
            network_add,
            network_rm,
            label_add,
            label_rm,
            endpoint_mode,
            balancing,
            affinity,
            locality,
            drain_timeout,
            return_path,
            idle_timeout,
            slow_start,
            healthcheck,
            passive_health,
            publish_not_ready,
            port_name_add,
            port_name_rm,
            program,
        } = update;
        let rm = publish_rm.into_iter();
        Ok(Self {
            version: version.map(|version| version.index),
            publish_add: publish_add.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            publish_rm: rm.map(change::PortPattern::from).collect(),
            network_add: network_add.into_iter().map(Into::into).collect(),
            network_rm,
            balancing: balancing.map(Into::into),
            affinity: affinity.map(TryInto::try_into).transpose()?,
            locality: locality.map(Into::into),
            mode: endpoint_mode.map(Into::into),
            drain_timeout: drain_timeout.as_deref().map(parse_duration).transpose()?,
            return_path: return_path.map(Into::into),
            idle_timeout: idle_timeout.as_deref().map(idle).transpose()?,
            slow_start: slow_start.as_deref().map(parse_duration).transpose()?,
            health: healthcheck.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            passive_health,
            publish_not_ready,
            port_name_add: port_names(port_name_add)?,
            port_name_rm,
            program: program.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            label_add,
            label_rm,
        })
    }
}

impl Service {
    /// A service as the world has it.
    pub fn of(world: &model::Snapshot, service: &model::Service) -> Self {
        let model::Service {
            id,
            name,
            mode,
            networks,
            ports,
            balancing,
            affinity,
            locality,
            drain_timeout,
            return_path,
            idle_timeout,
            slow_start,
            health,
            passive_health,
            discovery,
            program,
            labels,
            version,
            created,
            updated,
        } = service;
        let ports: Vec<PortConfig> = ports.iter().map(Into::into).collect();
        let endpoint_spec = EndpointSpec { mode: Some((*mode).into()), ports: ports.clone() };
        let targets = networks.iter().map(|attachment| NetworkTarget {
            target: attachment.network.to_string(),
            aliases: attachment.aliases.iter().map(ToString::to_string).collect(),
        });
        let tasks = world.tasks.of(id);
        let turnout = world.turnout(service, tasks);
        let running = tasks.iter().filter(|task| world.serves(task, &turnout)).count();
        let registered = tasks.iter().filter(|task| !task.state.is_terminal()).count();
        let desired = program.as_ref().map_or(registered, |program| program.replicas as usize);
        Self {
            id: id.to_string(),
            version: Version { index: *version },
            created_at: rfc3339(*created),
            updated_at: rfc3339(*updated),
            spec: ServiceSpec {
                name: name.to_string(),
                labels: labels.clone(),
                networks: targets.collect(),
                endpoint_spec: endpoint_spec.clone(),
                balancing: Some((*balancing).into()),
                affinity: Some((*affinity).into()),
                locality: Some((*locality).into()),
                drain_timeout: Some(format_duration(*drain_timeout)),
                return_path: Some((*return_path).into()),
                idle_timeout: idle_timeout.map(format_duration),
                slow_start: Some(format_duration(*slow_start)),
                healthcheck: health.as_ref().map(Into::into),
                passive_health: Some(*passive_health),
                publish_not_ready: discovery.publish_not_ready,
                port_names: discovery.port_names.iter().map(Into::into).collect(),
                program: program.as_ref().map(Into::into),
            },
            endpoint: Endpoint { spec: endpoint_spec, ports, virtual_ips: virtual_ips(world, networks) },
            service_status: ServiceStatus { running_tasks: running as u64, desired_tasks: desired as u64 },
            update_status: program.as_ref().and_then(|program| program.rollout.as_ref()).map(Into::into),
            shortages: Vec::new(),
        }
    }
}

/// In the order of the networks, IPv4 first, with the length of the network's subnet as Docker has it.
fn virtual_ips(world: &model::Snapshot, attachments: &[model::Attachment]) -> Vec<VirtualIp> {
    let mut all = Vec::new();
    for attachment in attachments {
        let (Some(vip), Some(network)) = (attachment.vip, world.networks.get(&attachment.network)) else {
            continue;
        };
        for (address, subnet) in vip.addresses().zip(network.subnets()) {
            all.push(VirtualIp {
                network_id: attachment.network.to_string(),
                addr: format!("{address}/{}", subnet.prefix_len()),
            });
        }
    }
    all
}
