//! **Effect.** `/v1/explain`: the decision for a flow, and what this node's kernel makes of it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mesh_core::dns::{self, Question, Zone};
use mesh_core::explain::{self, Flow};
use mesh_core::model::{self, EndpointMode, NetworkId, NodeId, Snapshot, Task};
use mesh_core::whois::Whois;
use mesh_ebpf::abi::{TCP, UDP};

use super::ApiState;
use super::answer::{Answer, Body, Refused};
use super::counters::look;
use super::types::{ErrorBody, ExplainRequest, Explanation, InKernel, LiveFlow, Protocol};
use crate::control::now;
use crate::dataplane::ebpf::{Asked, EbpfError};
use crate::netns::Netns;

/// Flows that are told of.
const FLOWS: usize = 20;

/// Why a flow goes where it goes
#[utoipa::path(post, path = "/v1/explain", tag = "node", request_body = ExplainRequest,
    responses(
        (status = 200, description = "The explanation", body = Explanation),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "It names something that is not there", body = ErrorBody)))]
pub(super) async fn explain(
    State(state): State<ApiState>,
    Body(request): Body<ExplainRequest>,
) -> Answer<Json<Explanation>> {
    let ExplainRequest { client, destination, port, protocol, node } = request;
    let world = state.control.world();
    let (client, client_port) = with_port(&client);
    let task = if client.parse::<IpAddr>().is_ok() { None } else { Some(find_task(&world, client)?) };
    let at = match (&node, task.or_else(|| owner(&world, client.parse().ok()?))) {
        (Some(reference), _) => {
            world.node(reference).ok_or_else(|| Refused::not_found("node", reference))?.id.clone()
        }
        (None, Some(task)) => task.node.clone(),
        (None, None) => state.control.node().clone(),
    };
    let networks: Vec<NetworkId> = match (client.parse::<IpAddr>(), task) {
        (_, Some(task)) => task.addresses.keys().cloned().collect(),
        (Ok(ip), None) => {
            let of = world.networks.values().filter(|network| network.subnets().any(|net| net.contains(&ip)));
            of.map(|network| network.id.clone()).collect()
        }
        (Err(_), None) => Vec::new(),
    };
    let destination = resolve(&world, &at, &destination, &networks)?;
    let client = match (client.parse(), task) {
        (Ok(ip), _) => ip,
        (Err(_), task) => address_of(&world, task, destination).ok_or_else(|| {
            Refused::invalid(format!("task {client} has no address to send to {destination} from"))
        })?,
    };
    let flow = Flow { client, destination, port, protocol: protocol.unwrap_or(Protocol::Tcp).into() };
    // A published port is balanced by the node that was sent to.
    let sent_to = world.nodes.values().find(|node| node.address == flow.destination);
    let entry = sent_to.map_or(at, |node| node.id.clone());
    let me = state.control.node();
    // Whom another node does not hear, it alone knows.
    let masks = if entry == *me { Arc::clone(&state.control.status().silent) } else { Arc::default() };
    let mut explanation = Explanation::of(&flow, explain::explain(&world, &masks, &entry, &flow, now()));
    if let Some(view) = &state.view {
        let asked = asked(&flow, client_port);
        let view = Arc::clone(view);
        let task = task.or_else(|| owner(&world, flow.client)).filter(|task| task.node == *me);
        let origin = task.map(|task| task.origin.clone());
        let leads = task.is_none_or(|task| !task.packets_only);
        let found = look(move || {
            let mut live = view.live(&asked, FLOWS)?;
            // Whose namespace is gone has no sockets.
            let netns = match origin {
                Some(origin) => Netns::of_origin(&origin).ok(),
                None if view.is_own(asked.client) => Netns::own().ok(),
                None => None,
            };
            if let Some(netns) = netns {
                live.extend(view.led(&asked, &netns, FLOWS - live.len().min(FLOWS))?);
            }
            let mut foreseen = view.foresee(&asked);
            foreseen.at_socket &= leads;
            Ok::<_, EbpfError>((foreseen, live))
        });
        let found = found.await;
        let (foreseen, live) = found.map_err(|error| Refused::unavailable(error.in_full()))?;
        let whois = Whois::of(&world, me);
        let mut kernel = if entry == *me {
            InKernel::of(&whois, client_port.is_some(), &foreseen)
        } else {
            InKernel::elsewhere(&world, &entry)
        };
        kernel.flows = live.iter().map(|live| LiveFlow::of(&whois, live)).collect();
        explanation.kernel = Some(kernel);
    }
    Ok(Json(explanation))
}

fn asked(flow: &Flow, client_port: Option<u16>) -> Asked {
    let proto = match flow.protocol {
        model::Protocol::Tcp => TCP,
        model::Protocol::Udp => UDP,
    };
    Asked { proto, client: flow.client, client_port, destination: flow.destination, port: flow.port }
}

/// `10.0.16.2:4000`, `[fd00::1]:4000`, `web.1:4000`: a client, and its port if it is given.
fn with_port(client: &str) -> (&str, Option<u16>) {
    if client.parse::<IpAddr>().is_ok() {
        return (client, None);
    }
    match client.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => {
            let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            (inside.unwrap_or(host), Some(port))
        }
        _ => (client, None),
    }
}

/// The task with an address.
fn owner(world: &Snapshot, address: IpAddr) -> Option<&Task> {
    let has = |task: &Task| task.addresses.values().any(|all| all.addresses().any(|one| one == address));
    world.tasks.values().map(Arc::as_ref).find(|task| has(task))
}

fn find_task<'a>(world: &'a Snapshot, reference: &str) -> Answer<&'a Task> {
    let task =
        world.task(reference).ok_or_else(|| Refused::not_found("client: address or task", reference))?;
    Ok(task.as_ref())
}

/// An address; what a client of these networks would be told by a name; what others can mean by one: a service's VIP, or a
/// node.
fn resolve(world: &Snapshot, at: &NodeId, destination: &str, networks: &[NetworkId]) -> Answer<IpAddr> {
    if let Ok(address) = destination.parse() {
        return Ok(address);
    }
    if !networks.is_empty() {
        let zone = Zone::build(world, at);
        for question in [Question::A, Question::Aaaa] {
            if let dns::Answer::Addresses(told) = zone.answer(networks, destination, question, 0)
                && let Some(first) = told.first()
            {
                return Ok(*first);
            }
        }
    }
    if let Some(node) = world.node(destination) {
        return Ok(node.address);
    }
    let service = world
        .service(destination)
        .ok_or_else(|| Refused::not_found("destination: address, name or node", destination))?;
    if service.mode == EndpointMode::Dnsrr {
        return Err(Refused::invalid(format!(
            "service {} has no VIP (its endpoint mode is dnsrr): name the address of a task",
            service.name
        )));
    }
    let vip = service.networks.iter().find_map(|attachment| attachment.vip);
    vip.map(|vip| IpAddr::V4(vip.v4)).ok_or_else(|| Refused::not_found("VIP of service", destination))
}

/// The address a task would send from: its own in the destination's network, else any of the same family.
fn address_of(world: &Snapshot, task: Option<&Task>, destination: IpAddr) -> Option<IpAddr> {
    let task = task?;
    let shared =
        world.networks.values().find(|network| network.subnets().any(|net| net.contains(&destination)));
    let there = shared.and_then(|network| task.addresses.get(&network.id));
    let mut addresses = there.or_else(|| task.addresses.values().next())?.addresses();
    addresses.find(|address| address.is_ipv4() == destination.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_may_have_ports() {
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]:80", "fd00::1", Some(80)),
            ("web.1", "web.1", None),
            ("web.1:4000", "web.1", Some(4000)),
            ("web.1:x", "web.1:x", None),
        ] {
            assert_eq!(with_port(text), (host, port), "{text}");
        }
    }
}
