//! **Effect.** `/v1/status` and the document of it all.

use axum::Json;
use axum::extract::State;

use mesh_core::change;

use super::ApiState;
use super::counters::{look, read};
use super::document;
use super::types::{Cluster, Status, alarm_in_words};
use crate::control::now;

/// How this node fares
#[utoipa::path(get, path = "/v1/status", tag = "node",
    responses((status = 200, description = "Its state, healthy or not", body = Status)))]
pub(super) async fn status(State(state): State<ApiState>) -> Json<Status> {
    let mut status = Status::of(&state.control.world(), state.control.node(), &state.control.status());
    if let Some(cluster) = Cluster::of(&state.cluster, &state.control.world()) {
        let alarms = cluster.alarms.iter().map(|alarm| ("cluster".to_owned(), alarm_in_words(alarm)));
        for (about, message) in alarms.collect::<Vec<_>>() {
            status.add_problem(&about, message);
        }
        status.store.managed = Some(cluster);
    }
    if let Some(overdue) = state.tls.as_ref().and_then(|tls| tls.overdue(now())) {
        status.add_problem("certificate", overdue);
    }
    let outage = change::outage(&state.control.world());
    if outage.too_many {
        let message = format!(
            "{} of {} nodes seem to be dead, which is more than a third: none is marked as such; look at the network \
             between them",
            outage.dead.len(),
            state.control.world().nodes.len()
        );
        status.add_problem("mesh", message);
    }
    if let Some(view) = state.view.clone() {
        match look(move || read(&view)).await {
            Ok(counters) => status.counters = Some(counters),
            Err(error) => status.add_problem("counters", error.in_full()),
        }
    }
    Json(status)
}

/// This API, as OpenAPI
#[utoipa::path(get, path = "/v1/openapi.json", tag = "node",
    responses((status = 200, description = "The document", content_type = "application/json")))]
pub(super) async fn openapi() -> Json<serde_json::Value> {
    Json(document::openapi())
}
