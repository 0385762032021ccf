//! **Effect.** `/v1/services`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use mesh_core::change;
use mesh_core::model::{self, Snapshot};
use mesh_core::replicas::shortages;
use mesh_core::serving::Serving;

use super::ApiState;
use super::answer::{Answer, Body, Refused, changed};
use super::types::{Changed, ErrorBody, Service, ServiceSpec, ServiceUpdate, Task};

/// All services, by name
#[utoipa::path(get, path = "/v1/services", tag = "services",
    responses((status = 200, description = "The services", body = Vec<Service>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Service>> {
    let world = state.control.world();
    let mut all: Vec<_> = world.services.values().map(|service| view(&world, service)).collect();
    all.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Json(all)
}

/// Make a service
#[utoipa::path(post, path = "/v1/services", tag = "services", request_body = ServiceSpec,
    responses(
        (status = 201, description = "It was made", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "It names a network or node that is not there", body = ErrorBody),
        (status = 409, description = "Something is in the way", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn create(
    State(state): State<ApiState>,
    Body(spec): Body<ServiceSpec>,
) -> Answer<(StatusCode, Json<Changed>)> {
    let request = change::ServiceRequest::try_from(spec).map_err(Refused::invalid)?;
    let done =
        state.control.change(|world, fresh| change::create_service(world, request.clone(), fresh)).await?;
    Ok((StatusCode::CREATED, changed(&state.control, &done.result.id, &done.result.name, done.rev)))
}

/// One service, by name or id
#[utoipa::path(get, path = "/v1/services/{id}", tag = "services",
    params(("id", description = "Name, id, or beginning of an id")),
    responses(
        (status = 200, description = "The service", body = Service),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(super) async fn inspect(State(state): State<ApiState>, Path(id): Path<String>) -> Answer<Json<Service>> {
    let world = state.control.world();
    let service = world.service(&id).ok_or_else(|| Refused::not_found("service", &id))?;
    Ok(Json(view(&world, service)))
}

/// A service, and what it lacks.
fn view(world: &Snapshot, service: &model::Service) -> Service {
    let shortages = shortages(world, service).into_iter().map(Into::into).collect();
    Service { shortages, ..Service::of(world, service) }
}

/// A service's tasks, by slot
#[utoipa::path(get, path = "/v1/services/{id}/tasks", tag = "services",
    params(("id", description = "Name, id, or beginning of an id")),
    responses(
        (status = 200, description = "The tasks", body = Vec<Task>),
        (status = 404, description = "There is no such service", body = ErrorBody)))]
pub(super) async fn tasks(State(state): State<ApiState>, Path(id): Path<String>) -> Answer<Json<Vec<Task>>> {
    let world = state.control.world();
    let service = world.service(&id).ok_or_else(|| Refused::not_found("service", &id))?;
    let masks = Arc::clone(&state.control.status().silent);
    let serving = Serving::of(&world, &masks, [&service.id]);
    Ok(Json(world.tasks_of(&service.id).map(|task| Task::of(&world, &masks, &serving, task)).collect()))
}

/// Change a service in place
#[utoipa::path(patch, path = "/v1/services/{id}", tag = "services", request_body = ServiceUpdate,
    params(("id", description = "Name, id, or beginning of an id")),
    responses(
        (status = 200, description = "It was changed", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "It, or what it names, is not there", body = ErrorBody),
        (status = 409, description = "Something is in the way", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn update(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Body(update): Body<ServiceUpdate>,
) -> Answer<Json<Changed>> {
    let update = change::ServiceUpdate::try_from(update).map_err(Refused::invalid)?;
    let done = state
        .control
        .change(|world, fresh| change::update_service(world, &id, update.clone(), fresh))
        .await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}

/// Remove a service; its tasks are told to stop
#[utoipa::path(delete, path = "/v1/services/{id}", tag = "services",
    params(("id", description = "Name, id, or beginning of an id")),
    responses(
        (status = 200, description = "It was removed", body = Changed),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn remove(State(state): State<ApiState>, Path(id): Path<String>) -> Answer<Json<Changed>> {
    let done = state.control.change(|world, fresh| change::remove_service(world, &id, fresh)).await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}
