//! **Effect.** `/v1/tasks`. A task is registered and changed on its own node; any node can ask it to stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use mesh_core::change::{self, TaskChange, TaskRequest};
use mesh_core::model::TaskId;
use mesh_core::serving::Serving;

use super::ApiState;
use super::answer::{Answer, Body, Refused, changed, switch};
use super::types::{Changed, ErrorBody, Task, TaskLife, TaskSpec, TaskUpdate};

/// All tasks of all nodes, by name
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks",
    responses((status = 200, description = "The tasks", body = Vec<Task>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Task>> {
    let world = state.control.world();
    let masks = Arc::clone(&state.control.status().silent);
    let serving = Serving::of(&world, &masks, world.services.keys());
    let mut all: Vec<_> = world.tasks.values().map(|task| Task::of(&world, &masks, &serving, task)).collect();
    // web.2 before web.10
    all.sort_by(|a, b| {
        let key =
            |task: &Task| (task.name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned(), task.slot);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    Json(all)
}

/// Register a task on this node and attach it to its networks
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks", request_body = TaskSpec,
    responses(
        (status = 201, description = "It was registered", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "It names something that is not there", body = ErrorBody),
        (status = 409, description = "Something is in the way", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn register(
    State(state): State<ApiState>,
    Body(spec): Body<TaskSpec>,
) -> Answer<(StatusCode, Json<Changed>)> {
    let request = TaskRequest::try_from(spec).map_err(Refused::invalid)?;
    let done = state.tasks.register(request).await?;
    let name = state.control.world().task_name(&done.result);
    Ok((StatusCode::CREATED, changed(&state.control, &done.result.id, name, done.rev)))
}

/// One task, by name or id
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id", description = "Name such as web.1, id, or beginning of an id")),
    responses(
        (status = 200, description = "The task", body = Task),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(super) async fn inspect(State(state): State<ApiState>, Path(id): Path<String>) -> Answer<Json<Task>> {
    let world = state.control.world();
    let task = world.task(&id).ok_or_else(|| Refused::not_found("task", &id))?;
    let masks = Arc::clone(&state.control.status().silent);
    let serving = Serving::of(&world, &masks, task.service.as_ref());
    let state = state.histories.of(&task.id).map(|history| TaskLife::of(task.health.into(), history));
    Ok(Json(Task { state, ..Task::of(&world, &masks, &serving, task) }))
}

/// Change a task of this node, or drain any
#[utoipa::path(patch, path = "/v1/tasks/{id}", tag = "tasks", request_body = TaskUpdate,
    params(("id", description = "Name such as web.1, id, or beginning of an id")),
    responses(
        (status = 200, description = "It was changed", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 409, description = "It belongs to another node", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn update(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Body(update): Body<TaskUpdate>,
) -> Answer<Json<Changed>> {
    let (id, name) = find(&state, &id)?;
    let availability = update.availability;
    let own = TaskChange::from(update);
    let mut rev = None;
    // First what may be refused because the task is another node's.
    if availability.is_none() || own != TaskChange::default() {
        rev = Some(state.tasks.change(&id, own).await?.rev);
    }
    if let Some(availability) = availability {
        let reference = id.as_str();
        let decide =
            |world: &_, fresh| change::set_task_availability(world, reference, availability.into(), fresh);
        rev = Some(state.control.change(decide).await?.rev);
    }
    Ok(changed(&state.control, &id, name, rev.unwrap_or_default()))
}

/// Ask a task to stop, or forget it at once
#[utoipa::path(delete, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id", description = "Name such as web.1, id, or beginning of an id"),
        ("force" = Option<bool>, Query, description = "Forget it at once, if it is on this node")),
    responses(
        (status = 200, description = "It was asked, or is forgotten", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 409, description = "It belongs to another node", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Changed>> {
    let force = switch(query.as_deref(), "force")?;
    let (id, name) = find(&state, &id)?;
    let done = if force {
        state.tasks.forget(&id).await?
    } else {
        state.control.change(|world, _| change::stop_task(world, id.as_str())).await?
    };
    Ok(changed(&state.control, &id, name, done.rev))
}

fn find(state: &ApiState, reference: &str) -> Answer<(TaskId, String)> {
    let world = state.control.world();
    let task = world.task(reference).ok_or_else(|| Refused::not_found("task", reference))?;
    Ok((task.id.clone(), world.task_name(task)))
}
