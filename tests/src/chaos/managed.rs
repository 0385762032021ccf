//! **Effect.** The store of a mesh under chaos whose first nodes are managers: each has a member of etcd, and its supervisor.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Place, cluster::status, store::MEMBERS};
use crate::{Lab, Node, eventually, exec::Exec};

/// How long a node may take to become a manager, and a member to be well again.
const READY: Duration = Duration::from_secs(60);
/// Where a member says how it fares, on its node's loopback.
const METRICS: &str = "http://127.0.0.1:7303";

/// What agents are told: each is a mesh of its own at first.
pub(super) const CONFIG: &str =
    "[store]\nmode = \"local\"\nlisten = \"\"\ngateway = \"\"\ntoken_file = \"\"\n";

/// The managers.
#[derive(Debug)]
pub(super) struct Managed<'a>(&'a [Node]);

impl<'a> Managed<'a> {
    /// Those that a lab has.
    pub(super) fn of(lab: &'a Lab) -> Self {
        Self(&lab.nodes()[..usize::from(MEMBERS)])
    }

    /// Makes a cluster of nodes that are a mesh of their own each.
    pub(super) fn start(lab: &'a Lab) -> Result<Self> {
        let patiently = |node: &Node, command: &str| -> Result<String> {
            node.mesh_command(command.split(' ')).timeout(READY).run()?.ok()
        };
        let managed = Self::of(lab);
        let first = &managed.0[0];
        patiently(first, "cluster init")?;
        let joins = |node: &Node, role: &str| -> Result<()> {
            let token = patiently(first, &format!("cluster token {role} --quiet"))?;
            patiently(node, &format!("cluster join {}", token.trim())).map(drop)
        };
        let (managers, workers) = lab.nodes().split_at(managed.0.len());
        managers[1..].iter().try_for_each(|node| joins(node, "manager"))?;
        workers.iter().try_for_each(|node| joins(node, "worker"))?;
        // Who joins as a manager is a worker at first.
        for (place, node) in lab.nodes().iter().enumerate() {
            let engine = if place < managed.0.len() { "managed" } else { "gateway" };
            eventually(READY, "every node is what it is to be", || {
                let store = &status(node)?["Store"];
                let is_so = store["Engine"] == engine && store["Connected"] == true;
                ensure!(is_so, "{}: {store}", node.name());
                Ok(())
            })?;
        }
        (0..managed.0.len()).try_for_each(|member| managed.is_well(member))?;
        Ok(managed)
    }

    fn node(&self, member: Place) -> &Node {
        &self.0[member]
    }

    /// The process of a member, as its supervisor wrote it down.
    fn process(&self, member: Place) -> Option<Pid> {
        let written = fs::read_to_string(self.node(member).state_dir().join("etcd/lock")).ok()?;
        let process = written.trim().parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?;
        command.contains("--initial-cluster-token").then_some(Pid::from_raw(process))
    }

    /// The process that watches over a member; nothing, if that is an orphan.
    fn supervisor(&self, member: Place) -> Option<Pid> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process(member)?)).ok()?;
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        let command = fs::read_to_string(format!("/proc/{parent}/cmdline")).ok()?;
        command.contains("\0etcd\0").then_some(Pid::from_raw(parent))
    }

    /// Which member leads; the first where none says so.
    pub(super) fn leader(&self) -> Place {
        let leads = |node: &Node| -> Result<bool> {
            let said = ask(node, "metrics")?;
            Ok(said.lines().any(|line| line == "etcd_server_is_leader 1"))
        };
        self.0.iter().position(|node| leads(node).unwrap_or(false)).unwrap_or_default()
    }

    /// Kills a member with -9; its supervisor starts it again. One that is dead already is no more so.
    pub(super) fn kill(&self, member: Place) -> Result<()> {
        signal(self.process(member), Signal::SIGKILL)
    }

    /// Kills a supervisor with -9. Its member goes on, until the next supervisor starts it anew.
    pub(super) fn kill_supervisor(&self, member: Place) -> Result<()> {
        signal(self.supervisor(member), Signal::SIGKILL)
    }

    /// Kills all of a manager's node that is Mesh's with -9.
    pub(super) fn kill_node(&self, member: Place) -> Result<()> {
        self.node(member).kill_agent()?;
        // The supervisor first: it would start another one.
        let process = self.process(member);
        self.kill_supervisor(member)?;
        signal(process, Signal::SIGKILL)
    }

    pub(super) fn freeze(&self, member: Place) -> Result<()> {
        signal(self.process(member), Signal::SIGSTOP)
    }

    pub(super) fn thaw(&self, member: Place) -> Result<()> {
        signal(self.process(member), Signal::SIGCONT)
    }

    /// Waits until a member is watched over, answers, and knows who leads.
    pub(super) fn is_well(&self, member: Place) -> Result<()> {
        let node = self.node(member);
        eventually(READY, "a member is well", || {
            ensure!(self.supervisor(member).is_some(), "nobody watches over {}'s", node.name());
            let said = ask(node, "health")?;
            ensure!(said.contains("\"true\""), "{} says {said}", node.name());
            Ok(())
        })
    }

    /// What `etcdctl` says, asked as the first manager.
    pub(super) fn ctl(&self, args: &[&str]) -> Result<String> {
        let node = self.node(0);
        let file = |name: &str| node.state_dir().join("etcd").join(name);
        let mut command = Command::new("timeout");
        command
            .envs([("ETCDCTL_API", "3"), ("ETCDCTL_ENDPOINTS", "https://127.0.0.1:7301")])
            .env("ETCDCTL_CACERT", file("ca.pem"))
            .env("ETCDCTL_CERT", file("member.pem"))
            .env("ETCDCTL_KEY", file("member.key"))
            .args(["3", "etcdctl"])
            .args(args);
        let output = Exec::new(node.netns(), command, "etcdctl".to_owned()).run()?;
        ensure!(output.stderr.trim().is_empty(), "`etcdctl` says: {}", output.stderr);
        Ok(output.stdout)
    }
}

fn ask(node: &Node, what: &str) -> Result<String> {
    node.exec(["curl", "-s", "-m", "2", &format!("{METRICS}/{what}")])?.ok()
}

/// Sends a signal; who is not there any more needs none.
fn signal(process: Option<Pid>, signal: Signal) -> Result<()> {
    match process.map(|process| kill(process, signal)) {
        None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
        Some(Err(error)) => Err(error).with_context(|| format!("{signal} cannot be sent")),
    }
}
