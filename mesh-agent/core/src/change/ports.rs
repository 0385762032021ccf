//! **Decision.** Which ports may be published.

use std::net::IpAddr;

use super::Refusal;
use crate::model::{Node, Protocol, PublishMode, PublishedPort, Service, ServiceId, Snapshot};

/// Never given to a service: who loses SSH on every node has lost his mesh.
pub fn protected_ports() -> &'static [(Protocol, u16, &'static str)] {
    &[(Protocol::Tcp, 22, "SSH")]
}

/// Whether a service may have these ports, beside all other services and what runs on the nodes. `old` are the
/// ports that it has already, which its own traffic may hold open.
pub(super) fn check(
    world: &Snapshot,
    service: Option<&ServiceId>,
    ports: &[PublishedPort],
    old: &[PublishedPort],
) -> Result<(), Refusal> {
    for (index, port) in ports.iter().enumerate() {
        if port.published == 0 || port.target == 0 {
            return Err(Refusal::Invalid(format!("invalid port in '{port}': ports are 1 to 65535")));
        }
        if ports[..index].iter().any(|earlier| earlier.conflict(port).is_some()) {
            return Err(Refusal::Invalid(format!(
                "EndpointSpec: duplicate published ports provided: {}/{}",
                port.published, port.protocol
            )));
        }
        for node in &port.nodes {
            if !world.nodes.values().any(|known| known.name == *node) {
                return Err(Refusal::not_found("node", node.as_str()));
            }
        }
        if old.contains(port) {
            continue;
        }
        if let Some((.., what)) = protected_ports()
            .iter()
            .find(|(proto, number, _)| *proto == port.protocol && *number == port.published)
        {
            return Err(Refusal::Conflict(format!(
                "port '{}' is protected ({what}): publishing it would take it away on every node",
                port.published
            )));
        }
        let others = world.services.values().filter(|other| Some(&other.id) != service);
        for other in others {
            if let Some(taken) = other.ports.iter().find(|taken| taken.conflict(port).is_some()) {
                return Err(taken_by_service(other, taken));
            }
        }
        for node in world.nodes.values() {
            check_node(node, port)?;
        }
    }
    Ok(())
}

fn taken_by_service(other: &Service, taken: &PublishedPort) -> Refusal {
    let how = match taken.mode {
        PublishMode::Ingress => "an ingress port",
        PublishMode::Host => "a host-published port",
    };
    Refusal::Conflict(format!(
        "port '{}' is already in use by service '{}' ({}) as {how}",
        taken.published, other.name, other.id
    ))
}

fn check_node(node: &Node, port: &PublishedPort) -> Result<(), Refusal> {
    if !port.nodes.is_empty() && !port.nodes.contains(&node.name) {
        return Ok(());
    }
    if port.protocol == Protocol::Udp && port.published == node.vxlan_port {
        return Err(Refusal::Conflict(format!(
            "port '{}/udp' is the tunnel's own on node {}",
            port.published, node.name
        )));
    }
    let meets = |address: IpAddr| {
        address.is_unspecified() || port.host_ip.is_empty() || port.host_ip.contains(&address)
    };
    let taken = node
        .listeners
        .iter()
        .find(|l| l.protocol == port.protocol && l.port == port.published && meets(l.address));
    match taken {
        Some(listener) => Err(Refusal::Conflict(format!(
            "port '{}/{}' is already in use by a process on node {} (it listens on {})",
            port.published, port.protocol, node.name, listener.address
        ))),
        None => Ok(()),
    }
}
