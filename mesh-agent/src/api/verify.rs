//! **Effect.** `/v1/verify`: every node compares its kernel with what is planned for it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use mesh_core::change;
use mesh_core::model::Snapshot;

use super::ApiState;
use super::answer::{Answer, Body};
use super::types::{ErrorBody, Verification, VerifyRequest};

/// How long nodes may take. Of a thousand nodes each waits up to ten seconds for its turn to report.
const PATIENCE: Duration = Duration::from_secs(30);

/// Have every node compare its kernel with what is planned
#[utoipa::path(post, path = "/v1/verify", tag = "nodes", request_body = VerifyRequest,
    responses(
        (status = 200, description = "What each node found", body = Verification),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 409, description = "The nodes are being verified already", body = ErrorBody),
        (status = 503, description = "The store cannot be asked", body = ErrorBody)))]
pub(super) async fn verify(
    State(state): State<ApiState>,
    Body(VerifyRequest { repair }): Body<VerifyRequest>,
) -> Answer<Json<Verification>> {
    let control = &state.control;
    let id = control.change(|world, fresh| change::begin_verification(world, repair, fresh)).await?.result;
    let mut worlds = control.worlds();
    let all_answered = worlds.wait_for(|world| change::awaited(world, &id).next().is_none());
    // Who has not answered by then is told of.
    let _ = tokio::time::timeout(PATIENCE, all_answered).await;
    let found = found(&control.world(), &id);
    // Not taken back, it is in nobody's way for long.
    let _ = control.change(|world, _| Ok(change::end_verification(world, &id))).await;
    Ok(Json(found))
}

fn found(world: &Snapshot, id: &str) -> Verification {
    let answer = |node| world.live.get(node).and_then(|live| live.verified.as_ref());
    // Of one that has left nothing is to be expected.
    let here = world.nodes.values().filter(|node| !node.left);
    let nodes = here.map(|node| (node, answer(&node.id).filter(|found| found.id == id)));
    Verification::of(nodes.map(|(node, found)| (node.as_ref(), found)))
}
