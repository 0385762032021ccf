//! What is compared: ways to the same server.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cgroup, Exec, Host, eventually};

use super::load::Load;
use super::server;

/// How long a way may take to open.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Where a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    /// From another machine, by the node that runs the task.
    Local,
    /// From another machine, by a node without a task.
    Remote,
    /// From a task of one node to one of another.
    Vip,
}

impl Entry {
    pub(super) const ALL: [Self; 3] = [Self::Local, Self::Remote, Self::Vip];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Vip => "vip",
        }
    }
}

/// One of those that are compared. It keeps its server running while it lives.
pub(super) trait Target {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The way that a client has; none: a client cannot come in so.
    fn path(&self, entry: Entry) -> Option<Path<'_>>;

    /// Whether it can have that.
    fn carries(&self, _load: Load) -> bool {
        true
    }

    /// A second machine that can ask, from farther away.
    fn outside(&self) -> &Host;
}

/// A client, and where it finds the server.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    /// Where the client runs.
    pub(super) host: &'a Host,
    /// A process in the namespaces of the client, if it does not run in those of the host.
    pub(super) inside: Option<u32>,
    pub(super) address: Ipv4Addr,
    /// The port of the web server. That of iperf3 is the same everywhere.
    pub(super) web: u16,
    /// Of all that works for it: client, nodes and server.
    pub(super) cgroup: &'a Cgroup,
}

impl Path<'_> {
    /// A command of the client's.
    pub(super) fn command(&self, argv: &[impl AsRef<OsStr>]) -> Exec {
        let mut words: Vec<&OsStr> = Vec::new();
        let pid = self.inside.unwrap_or_default().to_string();
        if self.inside.is_some() {
            words.extend(["nsenter", "-t", &pid, "-n", "-m", "--"].map(OsStr::new));
        }
        words.extend(server::CLIENT_CPUS.iter().map(OsStr::new));
        words.extend(argv.iter().map(AsRef::as_ref));
        self.host.command(words)
    }

    /// How long processors have worked for it: for its programs, and for their packets as they were sent.
    pub(super) fn worked(&self) -> Result<Duration> {
        let file = self.cgroup.path().join("cpu.stat");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        micros.map(Duration::from_micros).with_context(|| format!("no usage in {}", file.display()))
    }

    /// The web server's page.
    pub(super) fn url(&self) -> String {
        format!("http://{}:{}/", self.address, self.web)
    }

    /// Waits until the server answers.
    pub(super) fn answers(&self) -> Result<()> {
        eventually(OPEN_WITHIN, "the server answers", || {
            let said = self.command(&["curl", "-sS", "--max-time", "2", &self.url()]).ok()?;
            ensure!(said == server::PAGE, "it says {said:?}");
            Ok(())
        })
    }
}
