//! What a cluster of a thousand nodes costs its store, and how soon a change is everywhere.
//!
//! Nodes are simulated: each is an agent's own copy of the records and its own sign of life, over a connection of its
//! own to a real etcd, with a data plane that does nothing. All of them share this machine's processors with etcd,
//! where real ones would each have their own.

mod durable;
mod gap;
mod nodes;
mod report;
mod spread;
mod storm;
mod writes;

use anyhow::{Context, Result};
use mesh_agent::store::etcd::{EtcdOptions, EtcdStore, Known};
use mesh_tests::Etcd;
use tokio::runtime::Runtime;

pub use self::report::Report;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    nodes: u16,
    tasks: u16,
    changes: usize,
    kills: usize,
    durable_writes: usize,
    leaders_lost: usize,
}

impl Plan {
    /// A thousand nodes; the copies of twice as many tasks would need 26 GB.
    pub const FULL: Self =
        Self { nodes: 1000, tasks: 5000, changes: 100, kills: 20, durable_writes: 100_000, leaders_lost: 10 };
    /// A small one.
    pub const QUICK: Self =
        Self { nodes: 50, tasks: 1000, changes: 50, kills: 3, durable_writes: 5000, leaders_lost: 2 };

    /// The same with other numbers of nodes and tasks.
    #[must_use]
    pub fn sized(self, nodes: Option<u16>, tasks: Option<u16>) -> Self {
        Self { nodes: nodes.unwrap_or(self.nodes), tasks: tasks.unwrap_or(self.tasks), ..self }
    }
}

/// Measures everything.
pub fn run(plan: Plan) -> Result<Report> {
    let runtime = Runtime::new().context("cannot start threads")?;
    let (gap, durable) = {
        let gap = gap::measure(&runtime, plan.leaders_lost).context("when the leader is lost")?;
        (gap, durable::measure(&runtime, plan.kills, plan.durable_writes).context("over kill -9")?)
    };
    say("filling a store");
    let mut etcd = Etcd::on_disk(1)?;
    let world = runtime.block_on(nodes::fill(&etcd, plan.nodes, plan.tasks)).context("filling the store")?;
    let alone = runtime.block_on(writes::measure(&etcd)).context("writing alone")?;
    say(&format!("starting {} nodes", plan.nodes));
    let (nodes, start) = runtime.block_on(nodes::start(&etcd, world)).context("starting the nodes")?;
    say("changing tasks");
    let spread = runtime.block_on(spread::measure(&etcd, &nodes, plan.changes)).context("changing tasks")?;
    let watched = runtime.block_on(writes::measure(&etcd)).context("writing while nodes watch")?;
    say("killing etcd");
    let storm = storm::measure(&runtime, &mut etcd, &nodes).context("reconnecting")?;
    runtime.shutdown_background();
    Ok(Report { nodes: plan.nodes, tasks: plan.tasks, alone, watched, start, spread, storm, durable, gap })
}

/// One of many connections.
fn store(etcd: &Etcd) -> Result<EtcdStore> {
    let parse = |url: &String| url.parse().map_err(|why: String| anyhow::anyhow!(why));
    Ok(EtcdStore::new(EtcdOptions {
        engine: "external",
        endpoints: etcd.urls().iter().map(parse).collect::<Result<_>>()?,
        prefix: "/mesh/".to_owned(),
        tls: None,
        user: None,
        known: Known::default(),
    }))
}

/// For who waits.
fn say(what: &str) {
    eprintln!("cluster: {what}");
}
