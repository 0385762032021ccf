//! The name servers, each with a processor of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_tests::{Node, Process};

use super::NAME;

/// In the order of reports.
pub(super) const NAMES: [&str; 3] = ["mesh", "dnsmasq", "unbound"];
/// Their processor.
const CPU: &str = "0";
/// What they answer; for the others: an address like that of a service.
const ADDRESS: &str = "10.1.0.1";

/// One of them. It runs as long as it lives, if it is not the agent.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
    pid: u32,
    _process: Option<Process>,
}

impl Server {
    /// The agent, where tasks ask it.
    pub(super) fn mesh(node: &Node) -> Result<Self> {
        let pid = node.agent_id()?;
        node.command(["taskset", "--all-tasks", "--cpu-list", "--pid", CPU, &pid.to_string()]).ok()?;
        let address = Ipv4Addr::new(127, 0, 0, 11);
        Ok(Self { name: NAMES[0], address, port: 53, pid, _process: None })
    }

    pub(super) fn dnsmasq(node: &Node, inside: u64) -> Result<Self> {
        let record = format!("--host-record={NAME},{ADDRESS},5");
        let words =
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"];
        let more = ["--no-resolv", "--no-hosts", "--port=5301", &record];
        Self::start(node, inside, NAMES[1], 5301, &[&words[..], &more[..]].concat())
    }

    pub(super) fn unbound(node: &Node, inside: u64, file: &Path) -> Result<Self> {
        let config = format!(
            "server:\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n \
             num-threads: 1\n interface: 127.0.0.1@5302\n do-not-query-localhost: no\n \
             local-zone: \"app.\" static\n local-data: \"{NAME}. 5 IN A {ADDRESS}\"\n\
             remote-control:\n control-enable: no\n"
        );
        fs::write(file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.display().to_string();
        Self::start(node, inside, NAMES[2], 5302, &["unbound", "-d", "-c", &file])
    }

    fn start(node: &Node, inside: u64, name: &'static str, port: u16, words: &[&str]) -> Result<Self> {
        let inside = inside.to_string();
        let mut argv = vec!["nsenter", "-t", &inside, "-n", "--", "taskset", "--cpu-list", CPU];
        argv.extend(words);
        // nsenter and taskset become the server: its number is theirs.
        let process = node.spawn_daemon(name, &argv)?;
        Ok(Self { name, address: Ipv4Addr::LOCALHOST, port, pid: process.id(), _process: Some(process) })
    }

    /// How long processors have worked for it (proc(5) stat, fields 14 and 15), as exactly as it is counted.
    pub(super) fn worked(&self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .with_context(|| format!("{} has ended", self.name))?;
        let ticks: u64 = text
            .rsplit_once(')')
            .map(|(_, rest)| {
                rest.split(' ').skip(12).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
            })
            .with_context(|| format!("no times in {text}"))?;
        // USER_HZ is 100 for everybody.
        Ok(Duration::from_millis(ticks * 10))
    }
}
