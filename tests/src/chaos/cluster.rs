//! **Effect.** The mesh that chaos comes over: five nodes, three services, clients inside and outside.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    Place,
    schedule::Size,
    store::{MEMBERS, Store},
    traffic::{Client, server_name},
};
use crate::{Lab, LabBuilder, Netns, Node, eventually};

/// How long a start of everything may take.
const READY: Duration = Duration::from_secs(60);

/// On which nodes each service has its tasks.
pub(super) const SERVICES: [&[Place]; 3] = [&[0, 2, 4], &[1, 3, 4], &[2, 3]];
/// Of the services.
pub(super) const SIZE: Size =
    Size { nodes: 5, members: MEMBERS as usize, services: SERVICES.len(), managed: false };
/// By which nodes clients outside come in.
const ENTRIES: [Place; 2] = [0, 1];
/// On which nodes clients inside are.
const INSIDE: [Place; 2] = [2, 3];
/// The published port of the first service.
const PORT: u16 = 8_080;

/// What a lab has to be for it.
pub(super) fn lab(mesh: &Path, managed: bool) -> LabBuilder {
    // The kernel is looked at often, so that it is soon known whether anything is not as it should be.
    Lab::builder(mesh).nodes(SIZE.nodes).config(&Store::config(managed)).config("[dataplane]\nsweep = 1\n")
}

/// The name of a service.
pub(super) fn service(number: usize) -> String {
    format!("s{number}")
}

/// Starts everything in a lab: the store, agents, services, tasks.
pub(super) fn start(lab: &Lab, managed: bool) -> Result<(Store<'_>, Vec<Client>)> {
    let store = Store::start(lab, managed, READY)?;
    let first = node(lab, 0)?;
    eventually(READY, "every node knows all nodes", || {
        for node in lab.nodes() {
            let known = node.mesh(["node", "ls", "-q"])?.ok()?.lines().count();
            ensure!(known == SIZE.nodes, "{} knows {known} nodes", node.name());
        }
        Ok(())
    })?;
    first.mesh(["network", "create", "app"])?.ok()?;
    for (number, nodes) in SERVICES.iter().enumerate() {
        let (name, publish) = (service(number), format!("{}:80", port(number)));
        let create = ["service", "create", "-d", "--name", &name, "--network", "app", "--publish", &publish];
        first.mesh(create)?.ok()?;
        for place in *nodes {
            serve(lab, number, *place)?;
        }
    }
    let clients = clients(lab)?;
    for client in &clients {
        for target in &client.targets {
            let asked = || client.netns.run(|| std::net::TcpStream::connect_timeout(target, READY / 20));
            eventually(READY, "every service is reached from everywhere", || Ok(asked()??))?;
        }
    }
    Ok((store, clients))
}

/// Runs a task of a service; its id.
pub(super) fn serve(lab: &Lab, number: usize, place: Place) -> Result<String> {
    let service = service(number);
    let mut argv = ["task", "run", "-d", "--service", &service, "--"].map(str::to_owned).to_vec();
    argv.extend(lab.programs().web_named(80, &server_name(place)));
    let id = node(lab, place)?.mesh_command(argv).timeout(super::changes::PATIENCE).ok()?;
    Ok(id.trim().to_owned())
}

/// A node by its number.
pub(super) fn node(lab: &Lab, place: Place) -> Result<&Node> {
    lab.nodes().get(place).with_context(|| format!("the lab has no node {place}"))
}

fn port(service: usize) -> u16 {
    PORT + service as u16
}

fn clients(lab: &Lab) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for (place, host) in ENTRIES.into_iter().zip([lab.client(), lab.outside()]) {
        let address = node(lab, place)?.address();
        let targets = (0..SERVICES.len()).map(|number| SocketAddr::from((address, port(number))));
        let targets = targets.collect();
        clients.push(Client { netns: host.netns().clone(), entry: place, inside: false, targets });
    }
    let vips = (0..SERVICES.len()).map(|number| Ok((vip(lab, number)?, 80).into()));
    let vips = vips.collect::<Result<Vec<SocketAddr>>>()?;
    for place in INSIDE {
        let node = node(lab, place)?;
        let idle = ["task", "run", "-d", "--name", &format!("client-{place}"), "--network", "app", "--"];
        let id = node.mesh(idle.into_iter().chain(["sleep", "100000"]))?.ok()?;
        let found = node.mesh_json(["task", "inspect", id.trim()])?;
        let pid = found["Origin"]["Pid"].as_u64().with_context(|| format!("no pid: {found}"))?;
        let netns = Netns::of_process(u32::try_from(pid)?)?;
        clients.push(Client { netns, entry: place, inside: true, targets: vips.clone() });
    }
    Ok(clients)
}

fn vip(lab: &Lab, number: usize) -> Result<Ipv4Addr> {
    let found = node(lab, 0)?.mesh_json(["service", "inspect", &service(number)])?;
    let address = found["Endpoint"]["VirtualIPs"][0]["Addr"].as_str().context("no VIP")?;
    Ok(address.split('/').next().unwrap_or_default().parse()?)
}

/// What a node says of itself, whether all is well or not.
pub(super) fn status(node: &Node) -> Result<Value> {
    let output = node.mesh_command(["status", "--format", "json"]).timeout(READY / 20).run()?;
    serde_json::from_str(&output.stdout).with_context(|| format!("{} says: {}", node.name(), output.stderr))
}

/// Starts an agent and waits until it answers, whether all is well or not.
pub(super) fn start_agent(node: &Node) -> Result<()> {
    node.start_agent()?;
    eventually(READY, "the agent answers", || status(node).map(drop))
}

/// Cuts a file in half.
pub(super) fn truncate(file: &Path) -> Result<()> {
    let what = || format!("cannot cut {}", file.display());
    let half = fs::metadata(file).with_context(what)?.len() / 2;
    fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(half)).with_context(what)
}
