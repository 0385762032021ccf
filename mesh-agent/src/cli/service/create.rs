//! **Effect.** `mesh service create`.

use crate::api::types::{
    Affinity, Balancing, Changed, EndpointMode, EndpointSpec, Locality, ProgramConfig, ReturnPath,
    ServiceSpec,
};
use crate::cli::health::HealthFlags;
use crate::cli::options::{self, Attach, KeyValue, NamedPort};
use crate::cli::program::{DnsFlags, ProgramFlags};
use crate::cli::publish::Publish;
use crate::cli::{Session, replicas};

/// Create a new service
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CreateArgs {
    /// Service name
    #[arg(long)]
    name: String,
    /// Network to attach to, with further names there: app, app,alias=db
    #[arg(long, value_name = "NETWORK")]
    network: Vec<Attach>,
    /// Publish a port on the nodes: 8080:80, 8080-8082:80-82/udp, 127.0.0.1:8080:80, or
    /// published=8080,target=80[,protocol=udp][,mode=host][,host_ip=IP;IP][,nodes=NODE;NODE][,allow=CIDR;CIDR]
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<Publish>,
    /// What the name resolves to: one virtual address, or all tasks' addresses
    #[arg(long, value_enum, default_value = "vip")]
    endpoint_mode: EndpointMode,
    /// How a new flow finds its task
    #[arg(long, value_enum, default_value = "random")]
    balancing: Balancing,
    /// Whether a client's flows stay together: none, client-ip, client-ip=10m
    #[arg(long, value_parser = options::affinity, default_value = "none")]
    affinity: Affinity,
    /// Which tasks are preferred
    #[arg(long, value_enum, default_value = "spread")]
    locality: Locality,
    /// How long running flows of a leaving task may take to end
    #[arg(long, value_name = "DURATION", value_parser = options::duration, default_value = "30s")]
    drain_timeout: String,
    /// How answers to clients of a published port return from a task on another node
    ///
    /// tunnel: back through the node that the client sent to, which needs nothing of the network; dsr: straight from
    /// the task's node with the published address as source, which the network must let pass; snat: the task sees the
    /// entry node's address in its network instead of the client's, for networks where the way back cannot be
    /// controlled. VIPs are not concerned
    #[arg(long, value_enum, default_value = "tunnel")]
    return_path: ReturnPath,
    /// How long an established TCP flow, or a UDP flow, is remembered while nothing is sent, 10s to 120h; 'default' is
    /// 6h for TCP and 180s for UDP
    ///
    /// It is rounded up to the next of 10s, 30s, 1m, 2m, 5m, 15m, 30m, 1h, 2h, 6h, 12h, 24h, 48h, 96h and 120h
    #[arg(long, value_name = "DURATION", value_parser = options::idle_timeout, default_value = "default")]
    idle_timeout: String,
    /// How long the share of a task that has just come into the balance grows, at most 1h; 0: it has all of it at once
    ///
    /// It begins with 10 % of its weight and has 10 % more after each ninth of this time. Tasks that come together do
    /// not wait for each other
    #[arg(long, value_name = "DURATION", value_parser = options::duration, default_value = "0")]
    slow_start: String,
    /// Name a port that tasks listen on, for SRV questions: http=80 for _http._tcp.NAME, dns=53/udp
    ///
    /// The port need not be published
    #[arg(long, value_name = "NAME=PORT")]
    port_name: Vec<NamedPort>,
    /// Have the names of tasks lead to those that cannot serve yet or not now, too; the virtual address never does
    ///
    /// For those who must find each other before they are ready, such as the members of a cluster
    #[arg(long)]
    publish_not_ready: bool,
    #[command(flatten)]
    health: Box<HealthFlags>,
    /// Whether tasks that refuse connections, or do not answer them, are left out for a while: on, off
    ///
    /// Half of the tasks at most, and on nodes with the eBPF data plane, which sees what comes of connections
    #[arg(long, action = clap::ArgAction::Set, value_name = "SWITCH", value_parser = options::switch(), default_value = "on")]
    passive_health: bool,
    #[command(flatten)]
    program: Box<ProgramFlags>,
    /// With --cmd: set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    dns: Box<DnsFlags>,
    /// Service labels
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<KeyValue>,
    /// Exit at once instead of waiting for the mesh to converge
    #[arg(short, long)]
    detach: bool,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
}

pub(super) async fn run(args: CreateArgs, session: Session) -> anyhow::Result<u8> {
    let CreateArgs {
        name,
        network,
        publish,
        endpoint_mode,
        balancing,
        affinity,
        locality,
        drain_timeout,
        return_path,
        idle_timeout,
        slow_start,
        port_name,
        publish_not_ready,
        health,
        passive_health,
        program,
        env,
        dns,
        label,
        detach,
        quiet,
    } = args;
    let spec = ServiceSpec {
        name,
        labels: options::map(label),
        networks: network.into_iter().map(|Attach(target)| target).collect(),
        endpoint_spec: EndpointSpec {
            mode: Some(endpoint_mode),
            ports: publish.into_iter().flat_map(|Publish(ports)| ports).collect(),
        },
        balancing: Some(balancing),
        affinity: Some(affinity),
        locality: Some(locality),
        drain_timeout: Some(drain_timeout),
        return_path: Some(return_path),
        idle_timeout: Some(idle_timeout),
        slow_start: Some(slow_start),
        healthcheck: health.config(),
        passive_health: Some(passive_health),
        publish_not_ready,
        port_names: port_name.into_iter().map(|NamedPort(port)| port).collect(),
        program: program.config(ProgramConfig { env, dns_config: dns.config(), ..ProgramConfig::default() }),
    };
    let changed: Changed = session.client.post("/v1/services", &spec).await?;
    session.out.line(&changed.id);
    if !detach {
        session.out.quiet_progress(quiet);
        return replicas::converged(&session, &changed).await;
    }
    Ok(crate::cli::OK)
}
