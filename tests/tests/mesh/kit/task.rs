//! Tasks to serve and to look from.

use std::{collections::BTreeSet, ffi::OsStr, fs, net::Ipv4Addr};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Exec, Lab, Node, eventually};
use serde_json::Value;

use super::{Cli, READY, text};

/// A task of a node.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) node: &'a Node,
    /// `web.1`
    pub(crate) name: String,
    /// A process in its namespaces.
    pub(crate) pid: u32,
}

impl<'a> Task<'a> {
    /// `mesh task run -d OPTIONS -- COMMAND`
    pub(crate) fn run(node: &'a Node, options: &str, command: &[impl AsRef<str>]) -> Result<Self> {
        let mut argv = vec!["task", "run", "-d"];
        argv.extend(options.split_whitespace());
        argv.push("--");
        argv.extend(command.iter().map(AsRef::as_ref));
        let said = node.mesh(argv)?.ok()?;
        Self::find(node, said.trim())
    }

    /// A task by its name or id.
    pub(crate) fn find(node: &'a Node, id: &str) -> Result<Self> {
        let found = node.inspect("task", id)?;
        let pid = found["Origin"]["Pid"].as_u64().with_context(|| format!("no pid: {found}"))?;
        Ok(Self { node, name: text(&found["Name"]), pid: u32::try_from(pid)? })
    }

    /// A web server on port 80.
    pub(crate) fn web(lab: &Lab, node: &'a Node, service: &str) -> Result<Self> {
        Self::serve(node, service, &lab.programs().web(80), "tcp6", 80)
    }

    /// A UDP server on that port.
    pub(crate) fn udp(lab: &Lab, node: &'a Node, service: &str, port: u16) -> Result<Self> {
        Self::serve(node, service, &lab.programs().udp(port), "udp6", port)
    }

    /// A server of both protocols on port 80.
    pub(crate) fn both(lab: &Lab, node: &'a Node, service: &str) -> Result<Self> {
        let (web, udp) = (lab.programs().web(80).join(" "), lab.programs().udp(80).join(" "));
        let servers = ["sh", "-c", &format!("{web} & exec {udp}")].map(str::to_owned);
        let task = Self::serve(node, service, &servers, "tcp6", 80)?;
        task.listens("udp6", 80)?;
        Ok(task)
    }

    /// A server that listens when this returns.
    pub(crate) fn serve(
        node: &'a Node,
        service: &str,
        server: &[String],
        protocol: &str,
        port: u16,
    ) -> Result<Self> {
        let task = Self::run(node, &format!("--service {service}"), server)?;
        task.listens(protocol, port)?;
        Ok(task)
    }

    /// A task that only is there, to look at the mesh from.
    pub(crate) fn idle(node: &'a Node, network: &str) -> Result<Self> {
        let name = format!("idle-{network}-{}", node.name());
        Self::run(node, &format!("--name {name} --network {network}"), &["sleep", "1000"])
    }

    /// Waits until something has the port: `tcp6` and `udp6` for the servers of the lab, which take both families.
    pub(crate) fn listens(&self, protocol: &str, port: u16) -> Result<()> {
        listens(self.pid, protocol, port).with_context(|| format!("the server of {}", self.name))
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> Result<BTreeSet<Ipv4Addr>> {
        addresses(&self.node.inspect("task", &self.name)?)
    }

    /// Its only address.
    pub(crate) fn address(&self) -> Result<Ipv4Addr> {
        let all = self.addresses()?;
        ensure!(all.len() == 1, "{} has the addresses {all:?}", self.name);
        all.into_iter().next().context("no address")
    }

    /// A command in its namespaces.
    pub(crate) fn command(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Exec {
        let pid = self.pid.to_string();
        let enter = ["nsenter", "-t", &pid, "-n", "-m", "--"];
        let mut words: Vec<_> = enter.iter().map(|word| OsStr::new(word).to_owned()).collect();
        words.extend(argv.into_iter().map(|word| word.as_ref().to_owned()));
        self.node.command(words)
    }

    /// Ends it as `mesh task rm` does.
    pub(crate) fn rm(&self) -> Result<()> {
        self.node.ok(&format!("task rm {}", self.name))?;
        Ok(())
    }
}

/// The addresses in an inspected task.
pub(crate) fn addresses(task: &Value) -> Result<BTreeSet<Ipv4Addr>> {
    let attached = task["NetworksAttachments"].as_array();
    let attached = attached.with_context(|| format!("no attachments: {task}"))?;
    let mut all = BTreeSet::new();
    for attachment in attached {
        for address in attachment["Addresses"].as_array().into_iter().flatten() {
            let address = text(address);
            all.insert(address.split('/').next().unwrap_or_default().parse()?);
        }
    }
    Ok(all)
}

/// Waits until a socket of a process's namespace has the port.
pub(crate) fn listens(pid: u32, protocol: &str, port: u16) -> Result<()> {
    let file = format!("/proc/{pid}/net/{protocol}");
    let suffix = format!(":{port:04X}");
    // Listening, or for UDP unconnected.
    let state = if protocol.starts_with("tcp") { "0A" } else { "07" };
    eventually(READY, &format!("port {port} is listened on"), || {
        let table = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let there = table.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.len() > 3 && fields[1].ends_with(&suffix) && fields[3] == state
        });
        ensure!(there, "nothing listens");
        Ok(())
    })
}
