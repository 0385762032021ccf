//! **Effect.** `/v1/networks`.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use mesh_core::change::{self, NetworkRequest};

use super::ApiState;
use super::answer::{Answer, Body, Refused, changed, switch};
use super::types::{Changed, ErrorBody, Network, NetworkSpec};

/// All networks, by name
#[utoipa::path(get, path = "/v1/networks", tag = "networks",
    responses((status = 200, description = "The networks", body = Vec<Network>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Network>> {
    let world = state.control.world();
    let mut all: Vec<Network> = world.networks.values().map(|network| network.as_ref().into()).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Json(all)
}

/// Make a network
#[utoipa::path(post, path = "/v1/networks", tag = "networks", request_body = NetworkSpec,
    responses(
        (status = 201, description = "It was made", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "Something is in the way", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<ApiState>,
    Body(spec): Body<NetworkSpec>,
) -> Answer<(StatusCode, Json<Changed>)> {
    let request = NetworkRequest::try_from(spec).map_err(Refused::invalid)?;
    let done =
        state.control.change(|world, fresh| change::create_network(world, request.clone(), fresh)).await?;
    Ok((StatusCode::CREATED, changed(&state.control, &done.result.id, &done.result.name, done.rev)))
}

/// One network, by name or id
#[utoipa::path(get, path = "/v1/networks/{id}", tag = "networks",
    params(("id", description = "Name, id, or beginning of an id"),
        ("verbose" = Option<bool>, Query, description = "With services, tasks and peers")),
    responses(
        (status = 200, description = "The network", body = Network),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(super) async fn inspect(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Network>> {
    let verbose = switch(query.as_deref(), "verbose")?;
    let world = state.control.world();
    let network = world.network(&id).ok_or_else(|| Refused::not_found("network", &id))?;
    Ok(Json(if verbose { Network::verbose(&world, network) } else { network.as_ref().into() }))
}

/// Remove a network that nothing uses
#[utoipa::path(delete, path = "/v1/networks/{id}", tag = "networks",
    params(("id", description = "Name, id, or beginning of an id")),
    responses(
        (status = 200, description = "It was removed", body = Changed),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 409, description = "It is in use", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> Answer<Json<Changed>> {
    let done = state.control.change(|world, fresh| change::remove_network(world, &id, fresh)).await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}
