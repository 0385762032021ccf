//! **Effect.** `/v1/top`: one look at the mesh, for who looks again and again.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use rustix::time::{ClockId, clock_gettime};

use super::ApiState;
use super::types::{Top, TopCounted, WebState, sums};

/// The mesh as this node sees it, and what it sent to tasks
///
/// All that the web page shows, at one moment: two answers tell what was sent in between.
#[utoipa::path(get, path = "/v1/top", tag = "node",
    responses((status = 200, description = "The mesh at this moment", body = Top)))]
pub(super) async fn top(State(state): State<ApiState>) -> Json<Top> {
    // Off the threads that answer: there may be thousands of tasks, and megabytes of flows.
    match tokio::task::spawn_blocking(move || look(&state)).await {
        Ok(top) => Json(top),
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

fn look(state: &ApiState) -> Top {
    let ApiState { control, view, heard, .. } = state;
    let world = control.world();
    let seen = WebState::of(&world, control.node(), &control.status(), &heard.load(), view.is_some());
    let counted = view.as_ref().and_then(|view| {
        let at = clock_gettime(ClockId::Monotonic);
        let loads = view.loads().ok()?;
        let at = Duration::new(at.tv_sec.cast_unsigned(), at.tv_nsec.try_into().ok()?);
        Some(TopCounted::of(at, &sums(&world, &loads)))
    });
    Top { state: seen, counted }
}
