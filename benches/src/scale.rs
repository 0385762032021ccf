//! What a large mesh costs one node: a real agent with its real maps, and records of nodes that are nothing else.

mod agent;
mod changes;
mod plans;
pub(crate) mod records;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_agent::store::Store as _;
use mesh_agent::store::local::LocalStore;
use mesh_core::kv::{MAX_OPS, Txn, TxnOutcome};
use mesh_tests::{Lab, Node};

use self::agent::Agent;
use self::records::{FIRST_PORT, Records};
pub use self::report::Report;
use self::report::Row;
use crate::lab::mesh_program;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Meshes, by their services.
    pub services: Vec<u16>,
    /// Changes of each.
    pub changes: usize,
    /// How long nothing happens.
    pub idle: Duration,
}

impl Plan {
    /// All sizes.
    pub fn full() -> Self {
        Self { services: vec![100, 1_000, 10_000], changes: 200, idle: Duration::from_secs(20) }
    }

    /// Without the largest.
    pub fn quick() -> Self {
        Self { services: vec![100, 1_000], changes: 60, idle: Duration::from_secs(10) }
    }
}

const METRICS: u16 = 7305;
/// How long an agent may take to be done with all.
const READY: Duration = Duration::from_secs(180);
/// What is left of a start is over then.
const SETTLED: Duration = Duration::from_secs(8);
const SCRAPES: usize = 10;

/// Measures everything.
pub fn run(plan: &Plan) -> Result<Report> {
    let rows = plan.services.iter().map(|services| {
        eprintln!("{services} services");
        measure(*services, plan).with_context(|| format!("{services} services"))
    });
    Ok(Report { rows: rows.collect::<Result<_>>()? })
}

fn measure(services: u16, plan: &Plan) -> Result<Row> {
    let metrics = format!("[metrics]\nlisten = \"0.0.0.0:{METRICS}\"\n");
    // The second node has no agent: it is one of the records, and sees what the first one sends it.
    let lab = Lab::builder(mesh_program()?).nodes(2).dataplane("ebpf").config(&metrics).build()?;
    let [node, peer] = lab.nodes() else { anyhow::bail!("a lab of two nodes has others") };
    let records = Records::of(services, peer.address());
    // As silent as the nodes that are not there: a node that hears some and not others would leave those out.
    peer.netns().run(|| std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1"))??;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fill(node, records.all()))?;

    let first = agent::first_packet(&lab, peer)?;
    let began = Instant::now();
    node.start_agent()?;
    let agent = Agent::of(&lab, node, services)?;
    let programmed = agent.programmed(READY)?;
    let first_packet = first.recv_timeout(READY).context("no packet came")?;
    let rounds = agent.metrics()?.rounds();
    std::thread::sleep(SETTLED);
    let idle = agent.busy(plan.idle)?;
    let (resident, private) = (agent.memory("VmRSS")?, agent.memory("RssAnon")?);
    let scrapes = (0..SCRAPES).map(|_| agent.scrape().map(|(took, _)| took)).collect::<Result<Vec<_>>>()?;
    let changes = changes::measure(&lab, node, &agent, &records, plan.changes, idle)?;
    let (resident_after, planned) = (agent.memory("VmRSS")?, plans::measure(&records, plan.changes)?);
    Ok(Row::of(report::Measured {
        services,
        tasks: records.services.iter().map(|(_, tasks)| tasks.len()).sum(),
        first_packet: first_packet - began,
        programmed: programmed - began,
        rounds,
        resident,
        resident_after,
        private,
        idle,
        scrapes,
        changes,
        planned,
    }))
}

/// Writes all records into the store of an agent that does not run yet.
async fn fill(node: &Node, all: Vec<(String, String)>) -> Result<()> {
    let store = LocalStore::open(node.state_dir().join("store.redb"))?;
    for some in all.chunks(MAX_OPS) {
        let mut txn = Txn::default();
        some.iter().for_each(|(key, value)| txn.put(key, value));
        let outcome = store.txn(txn).await?;
        anyhow::ensure!(matches!(outcome, TxnOutcome::Committed { .. }), "not committed: {outcome:?}");
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
