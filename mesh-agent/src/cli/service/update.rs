//! **Effect.** `mesh service update`: in place, what is not named keeps working throughout.

use crate::api::types::{Affinity, Balancing, Changed, EndpointMode, Locality, ReturnPath, ServiceUpdate};
use crate::cli::options::{self, Attach, KeyValue};
use crate::cli::publish::{Publish, Unpublish};
use crate::cli::several::encode;
use crate::cli::{OK, Session, converge};

/// Update a service
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct UpdateArgs {
    /// Add a published port, in any form that 'service create --publish' takes
    #[arg(long, value_name = "PORT")]
    publish_add: Vec<Publish>,
    /// Remove published ports by their target port: 80, 8080:80, 53/udp, target=80,mode=host
    #[arg(long, value_name = "PORT")]
    publish_rm: Vec<Unpublish>,
    /// Join a network: app, app,alias=db
    #[arg(long, value_name = "NETWORK")]
    network_add: Vec<Attach>,
    /// Leave a network
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Add or change a label
    #[arg(long, value_name = "KEY=VALUE")]
    label_add: Vec<KeyValue>,
    /// Remove a label by its key
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// What the name resolves to: one virtual address, or all tasks' addresses
    #[arg(long, value_enum)]
    endpoint_mode: Option<EndpointMode>,
    /// How a new flow finds its task
    #[arg(long, value_enum)]
    balancing: Option<Balancing>,
    /// Whether a client's flows stay together: none, client-ip, client-ip=10m
    #[arg(long, value_parser = options::affinity)]
    affinity: Option<Affinity>,
    /// Which tasks are preferred
    #[arg(long, value_enum)]
    locality: Option<Locality>,
    /// How long running flows of a leaving task may take to end
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    drain_timeout: Option<String>,
    /// How answers return when a flow comes in by a published port of one node and its task is on another: back through
    /// the entry node (tunnel), straight from the task's node (dsr), or back through the entry node, whose address the
    /// task sees instead of the client's (snat). It concerns published ports only
    #[arg(long, value_enum)]
    return_path: Option<ReturnPath>,
    /// How long a flow is remembered while nothing is sent: 10s to 120h; default, or 0: 6h for TCP, 180s for UDP
    #[arg(long, value_name = "DURATION", value_parser = options::idle_timeout)]
    idle_timeout: Option<String>,
    /// How long the share of a task that has just come into the balance grows, at most 1h; 0: it has all of it at once
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    slow_start: Option<String>,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Name or ID
    #[arg(value_name = "SERVICE")]
    service: String,
}

pub(super) async fn run(args: UpdateArgs, session: Session) -> anyhow::Result<u8> {
    let UpdateArgs {
        publish_add,
        publish_rm,
        network_add,
        network_rm,
        label_add,
        label_rm,
        endpoint_mode,
        balancing,
        affinity,
        locality,
        drain_timeout,
        return_path,
        idle_timeout,
        slow_start,
        detach,
        quiet,
        service,
    } = args;
    let update = ServiceUpdate {
        version: None,
        publish_add: publish_add.into_iter().flat_map(|Publish(ports)| ports).collect(),
        publish_rm: publish_rm.into_iter().flat_map(|Unpublish(ports)| ports).collect(),
        network_add: network_add.into_iter().map(|Attach(target)| target).collect(),
        network_rm,
        label_add: options::map(label_add),
        label_rm,
        endpoint_mode,
        balancing,
        affinity,
        locality,
        drain_timeout,
        return_path,
        idle_timeout,
        slow_start,
    };
    let changed: Changed =
        session.client.patch(&format!("/v1/services/{}", encode(&service)), &update).await?;
    session.out.line(&service);
    if !detach {
        session.out.quiet_progress(quiet);
        converge::wait(&session, "Service", changed.revision).await?;
    }
    Ok(OK)
}
