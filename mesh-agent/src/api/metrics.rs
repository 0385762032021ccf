//! **Effect.** `/metrics`: on the API's socket, and for Prometheus at an address of its own.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, extract::State};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{ApiState, counters};
use crate::metrics::Scrape;

/// The version of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers until told to stop. Nothing else is to be had there.
pub async fn serve_metrics(
    listener: TcpListener,
    state: ApiState,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new().route("/metrics", get(scrape)).with_state(state);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Metrics of this node, in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "node",
    responses((status = 200, description = "The metrics", content_type = "text/plain")))]
pub(super) async fn scrape(State(state): State<ApiState>) -> Response {
    let control = &state.control;
    // A data plane that cannot be asked is missed by its metrics, and by what the status says.
    let (counters, backends) = counters::sums(&state).await.and_then(Result::ok).unzip();
    let backends = backends.unwrap_or_default();
    let (status, world, node) = (control.status(), control.world(), control.node().clone());
    let (dns, store) = (state.dns.counters(), state.times.read().collect());
    let certificate = state.tls.as_ref().map(|tls| tls.me().validity);
    match (Scrape { counters, backends, status, world, node, dns, store, certificate }).text() {
        Ok(text) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Err(fmt) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, fmt.to_string()).into_response(),
    }
}
