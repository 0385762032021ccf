//! **Effect.** `mesh haproxy`.

mod config;

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{OK, Session};
use crate::api::types::{Node, Protocol, PublishMode, Service, Task};
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
    let mut services = Vec::new();
    for reference in &args.services {
        services.push(session.client.get::<Service>(&format!("/v1/services/{reference}")).await?);
    }
    if args.services.is_empty() {
        services = session.client.get("/v1/services").await?;
        services.retain(|service: &Service| first_tcp(service).is_some());
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
    session.out.bytes(config::text(&frontends, args.checks, args.send_proxy).as_bytes());
    Ok(OK)
}

/// A frontend for each published port of TCP.
fn published(service: &Service, nodes: &[Node]) -> anyhow::Result<Vec<Frontend>> {
    let name = &service.spec.name;
    let tcp = service.endpoint.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let frontends: Vec<_> = tcp
        .map(|port| {
            let opens =
                |node: &&Node| port.nodes.is_empty() || port.nodes.contains(&node.description.hostname);
            let servers = nodes.iter().filter(opens).map(|node| Server {
                name: node.description.hostname.clone(),
                address: node.status.addr.clone(),
                ask: node.status.addr.clone(),
                about: name.clone(),
            });
            let at = format!("{name}-{}", port.published_port);
            let servers = Servers::Each(servers.collect());
            let (bind, asks) = (port.published_port, Some(name.clone()));
            Frontend { name: at, bind, port: bind, asks, servers }
        })
        .collect();
    if frontends.is_empty() {
        bail!("service {name} publishes no TCP port: publish one, or run HAProxy in a task (--way names)");
    }
    Ok(frontends)
}

/// By the name that leads to all tasks.
fn named(service: &Service, args: &ConfigArgs) -> anyhow::Result<Frontend> {
    let port = target(service, args)?;
    let (name, slots) = (service.spec.name.clone(), args.slots);
    let servers = Servers::Template { name: format!("tasks.{name}:{port}"), slots };
    Ok(Frontend { name, bind: port, port, asks: None, servers })
}

/// By the SRV records of a port, by its name where it has one: then the number may change.
fn recorded(service: &Service, args: &ConfigArgs) -> anyhow::Result<Frontend> {
    let named = service.spec.port_names.iter().find(|known| known.protocol == Protocol::Tcp);
    let (port, label) = match named.filter(|known| args.port.is_none_or(|port| port == known.target_port)) {
        Some(known) => (known.target_port, known.name.clone()),
        None => target(service, args).map(|port| (port, port.to_string()))?,
    };
    let name = service.spec.name.clone();
    let servers = Servers::Template { name: format!("_{label}._tcp.{name}"), slots: args.slots };
    Ok(Frontend { name, bind: port, port, asks: None, servers })
}

/// Each task by its address in the service's first network.
fn each(service: &Service, tasks: &[Task], nodes: &[Node], args: &ConfigArgs) -> anyhow::Result<Frontend> {
    let (name, port) = (service.spec.name.clone(), target(service, args)?);
    let network = service.spec.networks.first().map(|network| &network.target);
    let servers = tasks.iter().filter_map(|task| {
        let attached = task.networks_attachments.iter().find(|place| Some(&place.network.id) == network)?;
        let node = nodes.iter().find(|node| node.id == task.node_id)?;
        let (address, _) = attached.addresses.first()?.split_once('/')?;
        let ask = node.status.addr.clone();
        Some(Server { name: task.name.clone(), address: address.to_owned(), ask, about: task.name.clone() })
    });
    let servers = Servers::Each(servers.collect());
    Ok(Frontend { name, bind: port, port, asks: None, servers })
}

fn target(service: &Service, args: &ConfigArgs) -> anyhow::Result<u16> {
    args.port.or_else(|| first_tcp(service)).with_context(|| {
        format!("service {} publishes no TCP port: say with --port where its tasks listen", service.spec.name)
    })
}

/// The port of the tasks behind the first published port of TCP; those on all nodes come first.
fn first_tcp(service: &Service) -> Option<u16> {
    let mut tcp: Vec<_> =
        service.endpoint.ports.iter().filter(|port| port.protocol == Protocol::Tcp).collect();
    tcp.sort_by_key(|port| port.publish_mode != PublishMode::Ingress);
    tcp.first().map(|port| port.target_port)
}
