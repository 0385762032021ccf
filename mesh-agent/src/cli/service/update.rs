//! **Effect.** `mesh service update`: in place, what is not named keeps working throughout.

use crate::api::types::{
    Affinity, Balancing, Changed, EndpointMode, Locality, ProgramConfig, ReturnPath, ServiceUpdate,
};
use crate::cli::health::HealthFlags;
use crate::cli::options::{self, Attach, KeyValue, NamedPort};
use crate::cli::program::{DnsChanges, ProgramFlags};
use crate::cli::publish::{Publish, Unpublish};
use crate::cli::several::encode;
use crate::cli::{OK, Session, replicas};

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
    /// How answers to clients of a published port return from a task on another node
    ///
    /// tunnel: back through the node that the client sent to, which needs nothing of the network; dsr: straight from
    /// the task's node with the published address as source, which the network must let pass; snat: the task sees the
    /// entry node's address in its network instead of the client's, for networks where the way back cannot be
    /// controlled. VIPs are not concerned
    #[arg(long, value_enum)]
    return_path: Option<ReturnPath>,
    /// How long an established TCP flow, or a UDP flow, is remembered while nothing is sent, 10s to 120h; 'default', or
    /// 0, is 6h for TCP and 180s for UDP
    ///
    /// It is rounded up to the next of 10s, 30s, 1m, 2m, 5m, 15m, 30m, 1h, 2h, 6h, 12h, 24h, 48h, 96h and 120h
    #[arg(long, value_name = "DURATION", value_parser = options::idle_timeout)]
    idle_timeout: Option<String>,
    /// How long the share of a task that has just come into the balance grows, at most 1h; 0: it has all of it at once
    ///
    /// It begins with 10 % of its weight and has 10 % more after each ninth of this time. Tasks that come together do
    /// not wait for each other
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    slow_start: Option<String>,
    /// Add or change the name of a port: http=80, dns=53/udp
    #[arg(long, value_name = "NAME=PORT")]
    port_name_add: Vec<NamedPort>,
    /// Remove the name of a port
    #[arg(long, value_name = "NAME")]
    port_name_rm: Vec<String>,
    /// Have the names of tasks lead to those that cannot serve yet or not now, too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    publish_not_ready: Option<bool>,
    #[command(flatten)]
    health: Box<HealthFlags>,
    /// Whether tasks that refuse connections, or do not answer them, are left out for a while: on, off
    #[arg(long, value_name = "SWITCH", value_parser = options::switch())]
    passive_health: Option<bool>,
    #[command(flatten)]
    program: Box<ProgramFlags>,
    /// Add or change an environment variable of the command
    #[arg(long, value_name = "KEY=VALUE")]
    env_add: Vec<String>,
    /// Remove an environment variable of the command
    #[arg(long, value_name = "KEY")]
    env_rm: Vec<String>,
    #[command(flatten)]
    dns: Box<DnsChanges>,
    /// Replace all tasks even if nothing else changes
    #[arg(long)]
    force: bool,
    /// Roll back to the command that ran before
    #[arg(long, conflicts_with_all = ["cmd", "force", "env_add", "env_rm", "dns_add", "dns_rm", "dns_search_add", "dns_search_rm", "dns_option_add", "dns_option_rm"])]
    rollback: bool,
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
        port_name_add,
        port_name_rm,
        publish_not_ready,
        health,
        passive_health,
        program,
        env_add,
        env_rm,
        dns,
        force,
        rollback,
        detach,
        quiet,
        service,
    } = args;
    let [dns_config, dns_config_rm] = dns.configs();
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
        healthcheck: health.config(),
        passive_health,
        publish_not_ready,
        port_name_add: port_name_add.into_iter().map(|NamedPort(port)| port).collect(),
        port_name_rm,
        program: program.config(ProgramConfig {
            env: env_add,
            env_rm,
            dns_config,
            dns_config_rm,
            force,
            rollback,
            ..ProgramConfig::default()
        }),
    };
    let changed: Changed =
        session.client.patch(&format!("/v1/services/{}", encode(&service)), &update).await?;
    session.out.line(&service);
    if !detach {
        session.out.quiet_progress(quiet);
        return replicas::converged(&session, &changed).await;
    }
    Ok(OK)
}
