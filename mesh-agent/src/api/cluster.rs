//! **Effect.** `/v1/cluster`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mesh_core::change::{self, TokenTerms};
use mesh_core::model::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::answer::{Answer, Body, Refused, changed};
use super::types::{
    Changed, Cluster, ClusterAuthority, ClusterBackup, ClusterJoin, ClusterLeave, ClusterRotation,
    ClusterToken, ClusterTokenRequest, ErrorBody,
};

/// A node, by name or id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct ClusterPromotion {
    /// Name, id, or beginning of an id.
    node: String,
}

/// Nothing: the request says it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Nothing {}

/// The cluster that keeps the records
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster",
    responses(
        (status = 200, description = "The cluster, as this node sees it", body = Cluster),
        (status = 404, description = "This node belongs to none", body = ErrorBody)))]
pub(super) async fn inspect(State(state): State<ApiState>) -> Answer<Json<Cluster>> {
    let cluster = Cluster::of(&state.cluster, &state.control.world());
    let none = || {
        Refused::absent(
            "This node is not part of a cluster. Use \"mesh cluster init\" or \"mesh cluster join\" to connect this node \
             to a cluster and try again.",
        )
    };
    Ok(Json(cluster.ok_or_else(none)?))
}

/// Begin a cluster, with the records that this node has
#[utoipa::path(post, path = "/v1/cluster/init", tag = "cluster", request_body = Nothing,
    responses(
        (status = 200, description = "This node is its first manager", body = Nothing),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "It belongs to one, or its records are elsewhere", body = ErrorBody),
        (status = 503, description = "It failed, and nothing was changed", body = ErrorBody)))]
pub(super) async fn init(
    State(state): State<ApiState>,
    Body(Nothing {}): Body<Nothing>,
) -> Answer<Json<Nothing>> {
    state.cluster.init().await?;
    Ok(Json(Nothing {}))
}

/// Join a cluster, as a worker
#[utoipa::path(post, path = "/v1/cluster/join", tag = "cluster", request_body = ClusterJoin,
    responses(
        (status = 200, description = "This node is a worker of it", body = Nothing),
        (status = 400, description = "The token makes no sense, or is not of that cluster", body = ErrorBody),
        (status = 409, description = "It belongs to one, or has records of its own", body = ErrorBody),
        (status = 503, description = "The manager does not answer", body = ErrorBody)))]
pub(super) async fn join(
    State(state): State<ApiState>,
    Body(join): Body<ClusterJoin>,
) -> Answer<Json<Nothing>> {
    let ClusterJoin { token } = join;
    state.cluster.join(&token).await?;
    Ok(Json(Nothing {}))
}

/// Make a token that other nodes join with; it cannot be shown again
#[utoipa::path(post, path = "/v1/cluster/token", tag = "cluster", request_body = ClusterTokenRequest,
    responses(
        (status = 200, description = "The token", body = ClusterToken),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "This node is no manager", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn token(
    State(state): State<ApiState>,
    Body(request): Body<ClusterTokenRequest>,
) -> Answer<Json<ClusterToken>> {
    let ClusterTokenRequest { role, expiry, uses, rotate } = request;
    let role: Role = role.parse().map_err(|why: String| Refused::invalid(why))?;
    let life = Some(Duration::from_secs(expiry)).filter(|life| !life.is_zero());
    let terms = TokenTerms { role, life, uses: Some(uses).filter(|uses| *uses > 0), rotate };
    Ok(Json(ClusterToken { token: state.cluster.token(terms).await?.to_string() }))
}

/// The authority whose certificates nodes have
#[utoipa::path(get, path = "/v1/cluster/ca", tag = "cluster",
    responses(
        (status = 200, description = "It, and how far its replacement is", body = ClusterAuthority),
        (status = 409, description = "This node is no manager", body = ErrorBody)))]
pub(super) async fn authority(State(state): State<ApiState>) -> Answer<Json<ClusterAuthority>> {
    state.cluster.require_manager()?;
    let world = state.control.world();
    let (nodes, renewed) = change::rotated(&world);
    let (member_steps, member_steps_done) = change::member_rotation_progress(&world);
    Ok(Json(ClusterAuthority {
        roots: state.cluster.roots()?,
        rotating: world.rotation.as_ref().is_some_and(|rotation| !rotation.settled),
        nodes: nodes.max(world.identities.len()) as u64,
        renewed: renewed as u64,
        members_rotating: change::members_rotate(&world),
        member_steps: member_steps as u64,
        member_steps_done: member_steps_done as u64,
    }))
}

/// Begin to replace the authority
#[utoipa::path(post, path = "/v1/cluster/ca/rotate", tag = "cluster", request_body = ClusterRotation,
    responses(
        (status = 200, description = "It is being replaced, as it may have been before", body = Nothing),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "This node is no manager", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn rotate(
    State(state): State<ApiState>,
    Body(ClusterRotation { members }): Body<ClusterRotation>,
) -> Answer<Json<Nothing>> {
    match members {
        true => state.cluster.rotate_members().await?,
        false => state.cluster.rotate().await?,
    }
    Ok(Json(Nothing {}))
}

/// Leave the cluster
#[utoipa::path(post, path = "/v1/cluster/leave", tag = "cluster", request_body = ClusterLeave,
    responses(
        (status = 200, description = "This node is a mesh of its own, without records", body = Nothing),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "It is a manager, or belongs to none", body = ErrorBody)))]
pub(super) async fn leave(
    State(state): State<ApiState>,
    Body(leave): Body<ClusterLeave>,
) -> Answer<Json<Nothing>> {
    let ClusterLeave { force } = leave;
    state.cluster.leave(force).await?;
    Ok(Json(Nothing {}))
}

/// Make a node a manager
#[utoipa::path(post, path = "/v1/cluster/promote", tag = "cluster", request_body = ClusterPromotion,
    responses(
        (status = 200, description = "It will be one soon", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is no such node", body = ErrorBody),
        (status = 409, description = "It is one already, or there are enough", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn promote(
    State(state): State<ApiState>,
    Body(ClusterPromotion { node }): Body<ClusterPromotion>,
) -> Answer<Json<Changed>> {
    state.cluster.require_manager()?;
    let done = state.control.change(|world, _| change::promote(world, &node)).await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}

/// Make a manager a worker
#[utoipa::path(post, path = "/v1/cluster/demote", tag = "cluster", request_body = ClusterPromotion,
    responses(
        (status = 200, description = "It will be one soon", body = Changed),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is no such node", body = ErrorBody),
        (status = 409, description = "It is one already, or the last manager", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn demote(
    State(state): State<ApiState>,
    Body(ClusterPromotion { node }): Body<ClusterPromotion>,
) -> Answer<Json<Changed>> {
    state.cluster.require_manager()?;
    let done = state.control.change(|world, _| change::demote(world, &node)).await?;
    Ok(changed(&state.control, &done.result.id, &done.result.name, done.rev))
}

/// All records, to be restored from
#[utoipa::path(get, path = "/v1/cluster/backup", tag = "cluster",
    responses(
        (status = 200, description = "The records", body = ClusterBackup),
        (status = 409, description = "This node does not keep them", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn backup(State(state): State<ApiState>) -> Answer<Json<ClusterBackup>> {
    Ok(Json(ClusterBackup { content: state.cluster.backup().await? }))
}

/// Begin a cluster, with the records of a backup
#[utoipa::path(post, path = "/v1/cluster/restore", tag = "cluster", request_body = ClusterBackup,
    responses(
        (status = 200, description = "This node is its first manager", body = Nothing),
        (status = 400, description = "It is no backup, or a damaged one", body = ErrorBody),
        (status = 409, description = "This node belongs to a cluster, or has records of another mesh", body = ErrorBody),
        (status = 503, description = "It failed, and nothing was changed", body = ErrorBody)))]
pub(super) async fn restore(
    State(state): State<ApiState>,
    Body(ClusterBackup { content }): Body<ClusterBackup>,
) -> Answer<Json<Nothing>> {
    state.cluster.restore(&content).await?;
    Ok(Json(Nothing {}))
}

/// Go on with this manager alone, when the majority is lost for good
#[utoipa::path(post, path = "/v1/cluster/recover", tag = "cluster", request_body = Nothing,
    responses(
        (status = 200, description = "It is the only manager", body = Nothing),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "This node is no manager, or the majority answers", body = ErrorBody),
        (status = 503, description = "It failed", body = ErrorBody)))]
pub(super) async fn recover(
    State(state): State<ApiState>,
    Body(Nothing {}): Body<Nothing>,
) -> Answer<Json<Nothing>> {
    state.cluster.recover().await?;
    Ok(Json(Nothing {}))
}
