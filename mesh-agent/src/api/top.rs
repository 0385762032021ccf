//! **Effect.** `/v1/top`: one look at the mesh, for who looks again and again.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use rustix::time::{ClockId, clock_gettime};

use super::types::{Top, TopCounted, sums};
use super::{ApiState, counters};

/// The mesh as this node sees it, and what it sent to tasks
///
/// All that the web page shows, at one moment: two answers tell what was sent in between.
#[utoipa::path(get, path = "/v1/top", tag = "node",
    responses((status = 200, description = "The mesh at this moment", body = Top)))]
pub(super) async fn top(State(state): State<ApiState>) -> Json<Top> {
    Json(counters::look(move || look(&state)).await)
}

fn look(state: &ApiState) -> Top {
    let seen = state.seen();
    let counted = state.view.as_ref().and_then(|view| {
        let at = clock_gettime(ClockId::Monotonic);
        let loads = view.loads().ok()?;
        let at = Duration::new(at.tv_sec.cast_unsigned(), at.tv_nsec.try_into().ok()?);
        Some(TopCounted::of(at, &sums(&state.control.world(), &loads)))
    });
    Top { state: seen, counted }
}
