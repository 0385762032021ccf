//! How soon a node that dies or leaves, or a task that is killed, gets no new flows; and how often one is taken for dead that is not.
//!
//! Real agents, each with a kernel's data plane of its own. What a kernel does is told by flows: a client outside sends
//! the first datagram of a new flow through each of the other nodes every two milliseconds, and who answers it, or
//! that nobody does, is whom that node has picked.

mod deaths;
mod flows;
mod kills;
mod leaves;
mod quiet;
mod report;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lab, Node, eventually};
use nix::unistd::Pid;

pub use self::report::Report;
use crate::lab::mesh_program;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often a node dies.
    pub deaths: usize,
    /// How often a task is killed.
    pub kills: usize,
    /// How often a node is drained.
    pub leaves: usize,
    /// How long nobody dies, while packets are lost and processors busy.
    pub quiet: Duration,
    /// Busy loops meanwhile, on all nodes together.
    pub busy: usize,
}

impl Plan {
    /// Less than five minutes.
    pub const FULL: Self =
        Self { deaths: 50, kills: 50, leaves: 15, quiet: Duration::from_secs(20), busy: 512 };
    /// Less than two.
    pub const QUICK: Self =
        Self { deaths: 10, kills: 10, leaves: 5, quiet: Duration::from_secs(10), busy: 512 };
}

/// The nodes; the last one dies and leaves.
const NODES: usize = 5;
/// Of the service, on every node.
const PORT: u16 = 8080;
const SOON: Duration = Duration::from_secs(40);
/// Whoever was never heard is not judged.
const HEARD: Duration = Duration::from_secs(2);

/// Measures everything.
pub fn run(plan: Plan) -> Result<Report> {
    let (mesh, mut task) = Mesh::build()?;
    let mut deaths = Vec::new();
    for round in 1..=plan.deaths {
        deaths.extend(deaths::measure(&mesh).with_context(|| format!("death {round} of {}", plan.deaths))?);
    }
    let mut kills = Vec::new();
    for round in 1..=plan.kills {
        let times = kills::measure(&mesh, &mut task);
        kills.extend(times.with_context(|| format!("kill {round} of {}", plan.kills))?);
    }
    let mut leaves = Vec::new();
    for round in 1..=plan.leaves {
        leaves.extend(leaves::measure(&mesh).with_context(|| format!("leave {round} of {}", plan.leaves))?);
    }
    let quiet = quiet::measure(&mesh, plan.quiet, plan.busy).context("while nobody dies")?;
    Ok(Report::of(mesh.lab.dataplane().unwrap_or("ebpf"), plan, deaths, kills, leaves, quiet))
}

/// A mesh with one service, whose tasks are on the last two nodes.
struct Mesh {
    lab: Lab,
}

impl Mesh {
    /// And the process of the task on the last node.
    fn build() -> Result<(Self, Pid)> {
        let lab = Lab::builder(mesh_program()?).nodes(NODES).build()?;
        lab.start_agents(SOON)?;
        let mesh = Self { lab };
        let [first, .., stays, dies] = mesh.lab.nodes() else { anyhow::bail!("too few nodes") };
        first.mesh(["network", "create", "app"])?.ok()?;
        let published = format!("{PORT}:80/udp");
        first
            .mesh([
                "service",
                "create",
                "--name",
                "echo",
                "--network",
                "app",
                "--idle-timeout",
                "10s",
                "-p",
                &published,
            ])?
            .ok()?;
        mesh.serve(stays)?;
        let task = mesh.serve(dies)?;
        mesh.settle()?;
        thread::sleep(HEARD);
        Ok((mesh, task))
    }

    /// Runs a task on a node, which answers with the name of its node.
    fn serve(&self, node: &Node) -> Result<Pid> {
        let server = self.lab.programs().udp_named(80, node.name());
        let argv = ["task", "run", "-d", "--service", "echo", "--"].map(str::to_owned);
        let id = node.mesh(argv.into_iter().chain(server))?.ok()?;
        let pid = node.mesh(["task", "inspect", id.trim(), "--format", "{{.Origin.Pid}}"])?.ok()?;
        Ok(Pid::from_raw(pid.trim().parse().with_context(|| format!("no process: {pid}"))?))
    }

    /// Whose kernels are looked at.
    fn entries(&self) -> &[Node] {
        self.lab.nodes().split_last().map_or(&[], |(_, others)| others)
    }

    /// Who dies and leaves.
    fn victim(&self) -> Result<&Node> {
        self.lab.nodes().last().context("no node")
    }

    /// Waits until every node picks both tasks, and knows all others to be there.
    fn settle(&self) -> Result<()> {
        eventually(SOON, "every node picks both tasks", || {
            let flows = flows::send_for(self, Duration::from_millis(40))?;
            for (entry, node) in self.entries().iter().enumerate() {
                for server in self.lab.nodes().iter().rev().take(2) {
                    let mut served = flows.iter().filter(|flow| flow.entry == entry);
                    let picked = served.any(|flow| flow.answer.as_deref() == Some(server.name()));
                    ensure!(picked, "{} does not pick the task of {}", node.name(), server.name());
                }
            }
            Ok(())
        })?;
        eventually(SOON, "every node takes the others for ready", || {
            for node in self.lab.nodes() {
                let states = node.mesh(["node", "ls", "--format", "{{.Status}}"])?.ok()?;
                let count = states.lines().filter(|state| state.eq_ignore_ascii_case("ready")).count();
                ensure!(count == NODES, "{} takes {count} nodes for ready", node.name());
            }
            Ok(())
        })
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
