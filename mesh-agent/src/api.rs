//! **Effect.** The agent's HTTP API: the only way in for people and programs.
//!
//! It serves on a unix socket whose file permissions are the access control: whoever may write to it rules the
//! mesh, as with Docker's. Every change is a decision of `mesh_core::change`, carried out by [`Control`]; what
//! this module adds is words. See docs/api/openapi.json.

pub mod client;
pub mod document;
pub mod types;

mod about;
mod answer;
mod cluster;
mod counters;
mod events;
mod explain;
mod logs;
mod metrics;
mod monitor;
mod networks;
mod nodes;
mod services;
mod socket;
mod tasks;
mod top;
mod verify;
mod watch;
mod web;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use metrics::serve_metrics;
pub use socket::bind;
pub use web::{Stage, serve_web};

use self::types::WebState;
use crate::cluster::Cluster;
use crate::control::Control;
use crate::dataplane::ebpf::View;
use crate::dns::DnsServer;
use crate::events::Past;
use crate::health::Histories;
use crate::liveness::{Heard, Messenger};
use crate::pki::Tls;
use crate::store::timed::Times;
use crate::tasks::Tasks;

/// The largest request that is read.
const MAX_BODY: usize = 256 * 1024;
/// The largest backup that is read.
const MAX_BACKUP: usize = 1 << 30;

/// What the API speaks for. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The way to read and change the mesh.
    pub control: Control,
    /// This node's tasks.
    pub tasks: Tasks,
    /// What there is to see in the kernel, where that can be looked at.
    pub view: Option<Arc<View>>,
    /// What this node is to its cluster.
    pub cluster: Cluster,
    /// This node's certificate, where it has one.
    pub tls: Option<Arc<Tls>>,
    /// Speaks for this node to others, where that works.
    pub messenger: Option<Arc<Messenger>>,
    /// What other nodes' kernels say of them.
    pub heard: Heard,
    /// What changed and happened lately.
    pub past: Past,
    /// What the last probes of this node's tasks said.
    pub histories: Histories,
    /// This node's DNS.
    pub dns: DnsServer,
    /// How long the store takes.
    pub times: Arc<Times>,
    /// Where what commands of services print is kept.
    pub logs: PathBuf,
    /// Where web pages listen.
    pub stage: Stage,
}

impl ApiState {
    /// The mesh as this node sees it, for web pages and for `mesh top`.
    fn seen(&self) -> WebState {
        let Self { control, view, heard, .. } = self;
        WebState::of(&control.world(), control.node(), &control.status(), &heard.load(), view.is_some())
    }
}

/// Serves until `stop`, then lets requests that are under way end.
pub async fn serve(listener: UnixListener, state: ApiState, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(state)).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// All routes; [`document`] describes each of them.
fn router(state: ApiState) -> Router {
    Router::new()
        .route("/v1/networks", get(networks::list).post(networks::create))
        .route("/v1/networks/{id}", get(networks::inspect).delete(networks::remove))
        .route("/v1/services", get(services::list).post(services::create))
        .route("/v1/services/{id}", get(services::inspect).patch(services::update).delete(services::remove))
        .route("/v1/services/{id}/tasks", get(services::tasks))
        .route("/v1/services/{id}/logs", get(logs::service))
        .route("/v1/tasks", get(tasks::list).post(tasks::register))
        .route("/v1/tasks/{id}", get(tasks::inspect).patch(tasks::update).delete(tasks::remove))
        .route("/v1/tasks/{id}/logs", get(logs::task))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::inspect).patch(nodes::update).delete(nodes::remove))
        .route("/v1/verify", post(verify::verify))
        .route("/v1/cluster", get(cluster::inspect))
        .route("/v1/cluster/init", post(cluster::init))
        .route("/v1/cluster/join", post(cluster::join))
        .route("/v1/cluster/token", post(cluster::token))
        .route("/v1/cluster/ca", get(cluster::authority))
        .route("/v1/cluster/ca/rotate", post(cluster::rotate))
        .route("/v1/cluster/leave", post(cluster::leave))
        .route("/v1/cluster/promote", post(cluster::promote))
        .route("/v1/cluster/demote", post(cluster::demote))
        .route("/v1/cluster/backup", get(cluster::backup))
        .route(
            "/v1/cluster/restore",
            post(cluster::restore).layer(axum::extract::DefaultBodyLimit::max(MAX_BACKUP)),
        )
        .route("/v1/cluster/recover", post(cluster::recover))
        .route("/v1/status", get(about::status))
        .route("/v1/counters", get(counters::counters))
        .route("/v1/top", get(top::top))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/events", get(events::events))
        .route("/metrics", get(metrics::scrape))
        .route("/v1/monitor", get(monitor::monitor))
        .route("/v1/openapi.json", get(about::openapi))
        .merge(web::routes())
        .fallback(answer::no_route)
        .method_not_allowed_fallback(answer::no_method)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}
