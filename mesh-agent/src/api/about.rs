//! **Effect.** `/v1/status`, `/v1/explain` and the document of it all.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use mesh_core::explain::{self, Flow};
use mesh_core::model::{EndpointMode, NetworkId, Snapshot, Task};

use super::ApiState;
use super::answer::{Answer, Body, Refused};
use super::counters::{look, read};
use super::document;
use super::types::{ErrorBody, ExplainRequest, Explanation, Protocol, Status};

/// How this node fares
#[utoipa::path(get, path = "/v1/status", tag = "node",
    responses((status = 200, description = "Its state, healthy or not", body = Status)))]
pub(super) async fn status(State(state): State<ApiState>) -> Json<Status> {
    let mut status = Status::of(&state.control.world(), state.control.node(), &state.control.status());
    if let Some(view) = state.view.clone() {
        match look(move || read(&view)).await {
            Ok(counters) => status.counters = Some(counters),
            Err(error) => status.add_problem("counters", error.in_full()),
        }
    }
    Json(status)
}

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
    let task = if client.parse::<IpAddr>().is_ok() { None } else { Some(find_task(&world, &client)?) };
    let at = match (&node, task) {
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
    let destination = resolve(&world, &destination, &networks)?;
    let client = match (client.parse(), task) {
        (Ok(ip), _) => ip,
        (Err(_), task) => address_of(&world, task, destination).ok_or_else(|| {
            Refused::invalid(format!("task {client} has no address to send to {destination} from"))
        })?,
    };
    let flow = Flow { client, destination, port, protocol: protocol.unwrap_or(Protocol::Tcp).into() };
    let explanation = explain::explain(&world, &at, &flow);
    Ok(Json(Explanation::of(&flow, explanation)))
}

/// This API, as OpenAPI
#[utoipa::path(get, path = "/v1/openapi.json", tag = "node",
    responses((status = 200, description = "The document", content_type = "application/json")))]
pub(super) async fn openapi() -> Json<serde_json::Value> {
    Json(document::openapi())
}

fn find_task<'a>(world: &'a Snapshot, reference: &str) -> Answer<&'a Task> {
    let task =
        world.task(reference).ok_or_else(|| Refused::not_found("client: address or task", reference))?;
    Ok(task.as_ref())
}

/// An address, or the VIP that a client of these networks would be told.
fn resolve(world: &Snapshot, destination: &str, networks: &[NetworkId]) -> Answer<IpAddr> {
    if let Ok(address) = destination.parse() {
        return Ok(address);
    }
    let service = world
        .service(destination)
        .ok_or_else(|| Refused::not_found("destination: address or service", destination))?;
    if service.mode == EndpointMode::Dnsrr {
        return Err(Refused::invalid(format!(
            "service {} has no VIP (its endpoint mode is dnsrr): name the address of a task",
            service.name
        )));
    }
    let shared = service.networks.iter().find(|attachment| networks.contains(&attachment.network));
    let vip = shared.or(service.networks.first()).and_then(|attachment| attachment.vip);
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
