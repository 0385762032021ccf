//! `mesh-ebpf` and `mesh-nft`: a service of a mesh, on either of its data planes.

use std::net::Ipv4Addr;
use std::path::Path as File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Host, Lab, Node, eventually};
use serde_json::Value;

use super::server::{self, SINK, WEB};
use super::target::{Entry, Path, Target};

/// The published port of the web server.
const PUBLISHED: u16 = 8080;
/// The client's address towards the node that runs the task.
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 101);
const READY: Duration = Duration::from_secs(30);

/// Two nodes: a task that asks on the first, the one that serves on the second.
pub(super) struct Mesh {
    name: &'static str,
    lab: Lab,
    /// Places of the nodes.
    entry: usize,
    serving: usize,
    client: u32,
    task: Ipv4Addr,
    vip: Ipv4Addr,
}

impl Mesh {
    pub(super) fn build(name: &'static str, dataplane: &str, program: &File) -> Result<Self> {
        let lab = Lab::builder(program).nodes(2).dataplane(dataplane).build()?;
        lab.start_agents(READY)?;
        let [n1, n2] = [lab.node("n1")?, lab.node("n2")?];
        eventually(READY, "the nodes know each other", || {
            let known = n1.mesh(["node", "ls", "--format", "json"])?.ok()?.lines().count();
            ensure!(known == 2, "n1 knows {known}");
            Ok(())
        })?;
        // What came by one node leaves its mark on the client's ports at the task. By the other comes another client.
        let second =
            format!("address add {SECOND}/24 dev eth0\nroute add {} dev eth0 src {SECOND}\n", n2.address());
        lab.client().ip(&second)?;
        n1.mesh(["network", "create", "app"])?.ok()?;
        let ports = [format!("{PUBLISHED}:{WEB}"), format!("{SINK}:{SINK}"), format!("{SINK}:{SINK}/udp")];
        let mut create: Vec<&str> = "service create --name web --network app".split(' ').collect();
        create.extend(ports.iter().flat_map(|port| ["--publish", port.as_str()]));
        n1.mesh(create)?.ok()?;
        let command = server::command(&lab)?;
        let serving = run(n2, &["--service", "web"], &command)?;
        let asking = run(n1, &["--name", "client", "--network", "app"], &["sleep", "1000000"])?;
        let service = n1.mesh_json(["service", "inspect", "web"])?;
        let vip = address(&service["Endpoint"]["VirtualIPs"][0]["Addr"])?;
        let task = address(&serving["NetworksAttachments"][0]["Addresses"][0])?;
        let client = asking["Origin"]["Pid"].as_u64().with_context(|| format!("no pid: {asking}"))?;
        Ok(Self { name, lab, entry: 0, serving: 1, client: u32::try_from(client)?, task, vip })
    }

    /// The address of the task that serves.
    pub(super) fn task(&self) -> Ipv4Addr {
        self.task
    }

    /// From the task that asks to an address of the network.
    pub(super) fn between_tasks(&self, address: Ipv4Addr) -> Path<'_> {
        Path {
            host: &self.lab.nodes()[self.entry],
            inside: Some(self.client),
            address,
            web: WEB,
            cgroup: self.lab.cgroup(),
        }
    }

    fn published(&self, node: usize) -> Path<'_> {
        let address = self.lab.nodes()[node].address();
        Path { host: self.lab.client(), inside: None, address, web: PUBLISHED, cgroup: self.lab.cgroup() }
    }
}

impl Target for Mesh {
    fn name(&self) -> &'static str {
        self.name
    }

    fn path(&self, entry: Entry) -> Option<Path<'_>> {
        Some(match entry {
            Entry::Local => self.published(self.serving),
            Entry::Remote => self.published(self.entry),
            Entry::Vip => self.between_tasks(self.vip),
        })
    }

    fn outside(&self) -> &Host {
        self.lab.outside()
    }
}

/// Runs a task in the background; what there is to know of it.
fn run(node: &Node, options: &[&str], command: &[impl AsRef<str>]) -> Result<Value> {
    let mut words = vec!["task", "run", "--detach"];
    words.extend(options);
    words.push("--");
    words.extend(command.iter().map(AsRef::as_ref));
    let id = node.mesh(words)?.ok()?;
    node.mesh_json(["task", "inspect", id.trim()])
}

/// `10.0.0.2/32`
fn address(value: &Value) -> Result<Ipv4Addr> {
    let text = value.as_str().and_then(|text| text.split('/').next());
    text.and_then(|text| text.parse().ok()).with_context(|| format!("{value} is no address"))
}
