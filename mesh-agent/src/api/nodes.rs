//! **Effect.** `/v1/nodes`.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use mesh_core::change;
use mesh_core::liveness::Masks;
use mesh_core::model::{self, Snapshot};

use super::ApiState;
use super::answer::{Answer, Body, Refused, changed, switch};
use super::types::{self, Changed, ErrorBody, Node, NodeUpdate};

/// All nodes, by name
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes",
    responses((status = 200, description = "The nodes", body = Vec<Node>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Node>> {
    let world = state.control.world();
    let masks = &state.control.status().silent;
    let mut all: Vec<_> = world.nodes.values().map(|node| view(&state, &world, masks, node)).collect();
    all.sort_by(|a, b| a.description.hostname.cmp(&b.description.hostname));
    Json(all)
}

/// One node, by name or id
#[utoipa::path(get, path = "/v1/nodes/{id}", tag = "nodes",
    params(("id", description = "Name, id, beginning of an id, or 'self'")),
    responses(
        (status = 200, description = "The node", body = Node),
        (status = 404, description = "There is none", body = ErrorBody)))]
pub(super) async fn inspect(State(state): State<ApiState>, Path(id): Path<String>) -> Answer<Json<Node>> {
    let id = resolve(&state, id);
    let world = state.control.world();
    let node = world.node(&id).ok_or_else(|| Refused::not_found("node", &id))?;
    Ok(Json(view(&state, &world, &state.control.status().silent, node)))
}

/// Say what is wanted of a node
#[utoipa::path(patch, path = "/v1/nodes/{id}", tag = "nodes", request_body = NodeUpdate,
    params(("id", description = "Name, id, beginning of an id, or 'self'")),
    responses(
        (status = 200, description = "It was changed", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn update(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    Body(update): Body<NodeUpdate>,
) -> Answer<Json<Changed>> {
    let id = resolve(&state, id);
    let NodeUpdate { availability } = update;
    // The records say so in a moment; the others need not wait for that, where nothing is to serve until then.
    let (world, me) = (state.control.world(), state.control.node());
    let own = world.node(&id).is_some_and(|node| node.id == *me);
    let drained = own && availability == types::Availability::Drain && !world.hands_over(me);
    let _leaving = state.messenger.as_ref().filter(|_| drained).map(|messenger| messenger.leave());
    let done = state
        .control
        .change(|world, fresh| change::set_availability(world, &id, availability.into(), fresh))
        .await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}

/// Remove a node that is gone for good, with its tasks
#[utoipa::path(delete, path = "/v1/nodes/{id}", tag = "nodes",
    params(("id", description = "Name, id, beginning of an id, or 'self'"),
        ("force" = Option<bool>, Query, description = "Even if it shows life")),
    responses(
        (status = 200, description = "It was removed", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is none", body = ErrorBody),
        (status = 409, description = "It is alive", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn remove(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Json<Changed>> {
    let force = switch(query.as_deref(), "force")?;
    let id = resolve(&state, id);
    let done = state.control.change(|world, _| change::remove_node(world, &id, force)).await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}

/// A node as this one sees it, which does not hear some.
pub(super) fn view(state: &ApiState, world: &Snapshot, masks: &Masks, node: &model::Node) -> Node {
    let status = state.control.status();
    let own = (node.id == *state.control.node()).then_some(status.applied);
    let echo = state.heard.load().get(&node.id).copied();
    Node::of(world, node, own, masks.nodes.get(&node.id).copied(), echo)
}

/// `self` is this node, as in Docker, unless a node is named so.
fn resolve(state: &ApiState, reference: String) -> String {
    if reference == "self" && state.control.world().node("self").is_none() {
        return state.control.node().to_string();
    }
    reference
}
