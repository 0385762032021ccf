//! **Fact.** The API as an OpenAPI document, made of the handlers' own annotations. The copy in
//! docs/api/openapi.json changes only on purpose: a test compares both.

use utoipa::OpenApi;

use super::{
    about, cluster, counters, events, explain, logs, metrics, monitor, networks, nodes, services, tasks, top,
    verify, watch, web,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mesh",
        description = "The API of a Mesh agent, served on a unix socket (/run/mesh/mesh.sock). Names and shapes \
                       follow the Docker Engine API where it has them. References are names, ids, or beginnings \
                       of ids that name one thing only. Every change answers with the revision that made it; a \
                       node whose AppliedRevision has reached it forwards accordingly.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        networks::list, networks::create, networks::inspect, networks::remove,
        services::list, services::create, services::inspect, services::tasks, services::update, services::remove, logs::service,
        tasks::list, tasks::register, tasks::inspect, tasks::update, tasks::remove, logs::task,
        nodes::list, nodes::inspect, nodes::update, nodes::remove,
        verify::verify,
        cluster::inspect, cluster::init, cluster::join, cluster::token, cluster::authority, cluster::rotate, cluster::leave, cluster::promote,
        cluster::demote, cluster::backup, cluster::restore, cluster::recover,
        about::status, counters::counters, top::top, explain::explain, monitor::monitor, watch::watch, events::events, metrics::scrape, about::openapi,
        web::page, web::stream,
    ),
    tags(
        (name = "networks", description = "Isolated overlays"),
        (name = "services", description = "Names with a VIP, published ports and tasks"),
        (name = "tasks", description = "What serves"),
        (name = "nodes", description = "The machines of the mesh"),
        (name = "cluster", description = "The nodes that keep the records"),
        (name = "node", description = "The machine that is asked"),
    )
)]
struct Document;

/// The document.
pub fn openapi() -> serde_json::Value {
    // A description of our own types is always JSON.
    serde_json::to_value(Document::openapi()).unwrap_or_default()
}

/// The document as docs/api/openapi.json has it.
pub fn text() -> String {
    format!("{:#}\n", openapi())
}
