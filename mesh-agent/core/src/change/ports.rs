//! **Decision.** Which ports may be published.

use std::net::IpAddr;

use super::Refusal;
use crate::model::{Node, PortName, Protocol, PublishMode, PublishedPort, Service, ServiceId, Snapshot};

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

/// Whether ports may have these names: those of services (RFC 6335 §5.1), each once in a protocol.
pub(super) fn check_names(names: &[PortName]) -> Result<(), Refusal> {
    for (index, PortName { name, port, protocol }) in names.iter().enumerate() {
        let text = name.as_str();
        let letters = text.bytes().any(|byte| byte.is_ascii_alphabetic());
        if text.len() > 15 || !letters || text.contains('_') || text.contains("--") {
            return Err(Refusal::Invalid(format!(
                "invalid port name '{text}': it has 1 to 15 letters, digits and single '-', and at least one letter"
            )));
        }
        if *port == 0 {
            return Err(Refusal::Invalid(format!("invalid port of '{text}': ports are 1 to 65535")));
        }
        if names[..index].iter().any(|earlier| (&earlier.name, earlier.protocol) == (name, *protocol)) {
            return Err(Refusal::Invalid(format!("port name '{text}' is given twice for {protocol}")));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_are_those_of_services() {
        let named = |name: &str, port, protocol| PortName { name: name.parse().unwrap(), port, protocol };
        let one = |name: &str| check_names(&[named(name, 80, Protocol::Tcp)]);
        for name in ["http", "x", "http-alt", "a23456789012345"] {
            assert_eq!(one(name), Ok(()), "{name}");
        }
        for name in ["80", "a--b", "a_b", "a234567890123456"] {
            assert!(matches!(one(name), Err(Refusal::Invalid(why)) if why.contains("port name")), "{name}");
        }
        let dns = |port, protocol| named("dns", port, protocol);
        assert!(check_names(&[dns(53, Protocol::Udp), dns(53, Protocol::Tcp)]).is_ok());
        assert!(check_names(&[dns(53, Protocol::Udp), dns(54, Protocol::Udp)]).is_err());
        assert!(check_names(&[dns(0, Protocol::Udp)]).is_err());
    }
}
