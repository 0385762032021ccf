//! **Effect.** `/v1/counters`, and what the status tells of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use mesh_core::whois::Whois;

use super::ApiState;
use super::answer::{Answer, Refused};
use super::types::{AllCounters, Counters, ErrorBody};
use crate::dataplane::ebpf::{EbpfError, View};
use crate::metrics::BACKENDS;

/// What the node's data plane counts
#[utoipa::path(get, path = "/v1/counters", tag = "node",
    responses(
        (status = 200, description = "Since the data plane's maps were made, or since the task came", body = AllCounters),
        (status = 404, description = "The node's data plane counts nothing", body = ErrorBody),
        (status = 503, description = "The kernel cannot be asked", body = ErrorBody)))]
pub(super) async fn counters(State(state): State<ApiState>) -> Answer<Json<AllCounters>> {
    view(&state, "counters", "there are")?;
    let counters = all(&state).await.unwrap_or_else(|| Ok(AllCounters::default()));
    Ok(Json(counters.map_err(|error| Refused::unavailable(error.in_full()))?))
}

/// All that the data plane counts, where it does.
pub(super) async fn all(state: &ApiState) -> Option<Result<AllCounters, EbpfError>> {
    let view = state.view.clone()?;
    let world = state.control.world();
    let whois = Whois::of(&world, state.control.node());
    let read = look(move || Ok((read(&view)?, view.served()?))).await;
    Some(read.map(|(counters, served)| counters.with_services(&world, &whois, &served)))
}

/// The same for a page of metrics, and how many backends there are.
pub(super) async fn sums(state: &ApiState) -> Option<Result<(AllCounters, usize), EbpfError>> {
    let view = state.view.clone()?;
    let (world, node) = (state.control.world(), state.control.node().clone());
    let read = look(move || {
        let (counters, served) = (read(&view)?, view.served()?);
        let count = served.len();
        let all = if count > BACKENDS {
            counters.with_sums(&world, &served)
        } else {
            counters.with_services(&world, &Whois::of(&world, &node), &served)
        };
        Ok((all, count))
    });
    Some(read.await)
}

/// The kernel's maps, where there are some.
pub(super) fn view(state: &ApiState, what: &str, there: &str) -> Answer<Arc<View>> {
    let missing = format!("the nft data plane has no {what}; with dataplane.mode = \"ebpf\" {there}");
    state.view.clone().ok_or_else(|| Refused::absent(missing))
}

/// What is counted as a whole.
pub(super) fn read(view: &View) -> Result<Counters, EbpfError> {
    Ok(Counters::of(&view.events()?, view.occupancy()?))
}

/// Off the threads that answer: it may look at megabytes of flows, and at thousands of tasks.
pub(super) async fn look<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(what).await {
        Ok(seen) => seen,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}
