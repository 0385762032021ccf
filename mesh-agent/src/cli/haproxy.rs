//! **Effect.** `mesh haproxy`.

mod config;

use std::net::IpAddr;

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{OK, Session};
use crate::api::types::{Node, PortConfig, Protocol, PublishMode, Service, Task};
use config::{Frontend, Server, Servers};

/// Put HAProxy in front of services
#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    Config(ConfigArgs),
}

/// How HAProxy reaches a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Way {
    /// HAProxy is outside: published ports of all nodes
    Nodes,
    /// HAProxy is a task: the service's name, followed without a reload
    Names,
    /// HAProxy is a task: the service's SRV records, each task with its port and weight, followed without a reload
    Srv,
    /// HAProxy is a task: each task that there is now, with its own weight
    Tasks,
}

/// Print a configuration of HAProxy for services
#[derive(Debug, clap::Args)]
pub(super) struct ConfigArgs {
    /// How HAProxy reaches the services
    #[arg(long, value_enum, default_value_t = Way::Nodes)]
    way: Way,
    /// Ask nodes about themselves, their services and tasks: the port of their checks.listen
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    checks: Option<u16>,
    /// The port that tasks listen on [default: the target of the service's first published TCP port; with --way srv its
    /// first named TCP port]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// With --way names and srv: room for so many tasks
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    slots: u16,
    /// Tell tasks the client's address by the PROXY protocol, version 2
    #[arg(long)]
    send_proxy: bool,
    /// Names or ids [default: all services that publish a TCP port]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(verb: Verb, session: Session) -> anyhow::Result<u8> {
    let Verb::Config(args) = verb;
    let mut services: Vec<Service> = Vec::new();
    for reference in &args.services {
        let service: Service = session.client.get(&format!("/v1/services/{reference}")).await?;
        if services.iter().all(|other| other.id != service.id) {
            services.push(service);
        }
    }
    if args.services.is_empty() {
        services = session.client.get("/v1/services").await?;
    }
    let notes = left_out(&services, args.way);
    if args.services.is_empty() {
        services.retain(|service| first_tcp(service).is_some());
        if services.is_empty() {
            bail!("no service publishes a TCP port: name a service, and its port with --port");
        }
    }
    let nodes: Vec<Node> = session.client.get("/v1/nodes").await?;
    let mut frontends = Vec::new();
    for service in &services {
        match args.way {
            Way::Nodes => frontends.extend(published(service, &nodes)?),
            Way::Names => frontends.push(named(service, &args)?),
            Way::Srv => frontends.push(recorded(service, &args)?),
            Way::Tasks => {
                let tasks: Vec<Task> =
                    session.client.get(&format!("/v1/services/{}/tasks", service.id)).await?;
                frontends.push(each(service, &tasks, &nodes, &args)?);
            }
        }
    }
    if frontends.is_empty() {
        bail!("nothing is left: {}", notes.join("; "));
    }
    session.out.bytes(config::text(&frontends, &notes, args.checks, args.send_proxy).as_bytes());
    Ok(OK)
}

/// What a configuration has no frontend for.
fn left_out(services: &[Service], way: Way) -> Vec<String> {
    let ports = services.iter().flat_map(|service| {
        service.endpoint.ports.iter().map(move |port| (&service.spec.name, port.published_port, port))
    });
    let notes = ports.filter_map(|(name, published, port)| match port.protocol {
        Protocol::Udp => {
            Some(format!("service {name}: port {published}/udp is left out, HAProxy forwards no UDP"))
        }
        Protocol::Tcp if way == Way::Nodes && outside(port).is_some_and(|all| all.is_empty()) => {
            Some(format!("service {name}: port {published} is left out, nodes have it for themselves only"))
        }
        Protocol::Tcp => None,
    });
    notes.collect()
}

/// The addresses that others reach a port at, if it is not all of a node's.
fn outside(port: &PortConfig) -> Option<Vec<IpAddr>> {
    let reached = || port.host_ip.iter().copied().filter(|ip| !ip.is_loopback());
    (!port.host_ip.is_empty()).then(|| reached().collect())
}

/// A frontend for each published port of TCP.
fn published(service: &Service, nodes: &[Node]) -> anyhow::Result<Vec<Frontend>> {
    let name = &service.spec.name;
    let tcp = service.endpoint.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    if tcp.clone().next().is_none() {
        bail!("service {name} publishes no TCP port: publish one, or run HAProxy in a task (--way names)");
    }
    let frontends = tcp.filter_map(|port| {
        let opens = |node: &&Node| port.nodes.is_empty() || port.nodes.contains(&node.description.hostname);
        let nodes = nodes.iter().filter(opens);
        let server = |called: &str, address: String| Server {
            name: called.to_owned(),
            ask: address.clone(),
            address,
            about: format!("{name}:{}/tcp", port.published_port),
        };
        let servers: Vec<_> = match outside(port) {
            None => nodes.map(|node| server(&node.description.hostname, node.status.addr.clone())).collect(),
            Some(addresses) => (addresses.iter().map(ToString::to_string))
                .map(|address| match nodes.clone().find(|node| node.status.addr == address) {
                    Some(node) => server(&node.description.hostname, address),
                    None => server(&address.clone(), address),
                })
                .collect(),
        };
        let at = format!("{name}-{}", port.published_port);
        let (bind, asks) = (port.published_port, Some(format!("{name}:{}/tcp", port.published_port)));
        (!servers.is_empty()).then(|| {
            let servers = Servers::Each(servers);
            Frontend { name: at, bind, instead: None, port: bind, asks, servers }
        })
    });
    Ok(frontends.collect())
}

/// Tasks as servers, at the port where they listen: they are asked themselves.
fn inside(service: &Service, port: u16, servers: Servers) -> Frontend {
    let instead = first_tcp(service).map(|port| port.published_port);
    Frontend { name: service.spec.name.clone(), bind: port, instead, port, asks: None, servers }
}

/// By the name that leads to all tasks.
fn named(service: &Service, args: &ConfigArgs) -> anyhow::Result<Frontend> {
    let port = target(service, args)?;
    let name = format!("tasks.{}:{port}", service.spec.name);
    let servers = Servers::Template { name, slots: args.slots };
    Ok(inside(service, port, servers))
}

/// By the SRV records of a port, by its name where it has one: then the number may change.
fn recorded(service: &Service, args: &ConfigArgs) -> anyhow::Result<Frontend> {
    let named = service.spec.port_names.iter().find(|known| known.protocol == Protocol::Tcp);
    let (port, label) = match named.filter(|known| args.port.is_none_or(|port| port == known.target_port)) {
        Some(known) => (known.target_port, known.name.clone()),
        None => target(service, args).map(|port| (port, port.to_string()))?,
    };
    let name = format!("_{label}._tcp.{}", service.spec.name);
    let servers = Servers::Template { name, slots: args.slots };
    Ok(inside(service, port, servers))
}

/// Each task by its address in the service's first network.
fn each(service: &Service, tasks: &[Task], nodes: &[Node], args: &ConfigArgs) -> anyhow::Result<Frontend> {
    let port = target(service, args)?;
    let network = service.spec.networks.first().map(|network| &network.target);
    let servers = tasks.iter().filter_map(|task| {
        let attached = task.networks_attachments.iter().find(|place| Some(&place.network.id) == network)?;
        let node = nodes.iter().find(|node| node.id == task.node_id)?;
        let (address, _) = attached.addresses.first()?.split_once('/')?;
        let ask = node.status.addr.clone();
        Some(Server { name: task.name.clone(), address: address.to_owned(), ask, about: task.name.clone() })
    });
    let servers = Servers::Each(servers.collect());
    Ok(inside(service, port, servers))
}

fn target(service: &Service, args: &ConfigArgs) -> anyhow::Result<u16> {
    args.port.or_else(|| first_tcp(service).map(|port| port.target_port)).with_context(|| {
        format!("service {} publishes no TCP port: say with --port where its tasks listen", service.spec.name)
    })
}

/// The first published port of TCP; those on all nodes come first.
fn first_tcp(service: &Service) -> Option<&PortConfig> {
    let tcp = service.endpoint.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    tcp.min_by_key(|port| port.publish_mode != PublishMode::Ingress)
}
