//! What was measured, as JSON and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::times::Times;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) nodes: u16,
    pub(super) tasks: u16,
    /// Transactions while nobody watches.
    pub(super) alone: Writes,
    /// Transactions while every node watches.
    pub(super) watched: Writes,
    pub(super) start: Start,
    pub(super) spread: Spread,
    pub(super) storm: Storm,
    pub(super) durable: Durable,
    /// How long nothing came through when the leader was killed, ms.
    pub(super) gap: Times,
}

/// How many transactions came through.
#[derive(Debug, Serialize)]
pub(super) struct Writes {
    pub(super) per_second: f64,
}

/// All nodes start and list everything.
#[derive(Debug, Serialize)]
pub(super) struct Start {
    pub(super) records: usize,
    pub(super) seconds: f64,
    pub(super) memory_mib_per_node: f64,
}

/// One task's change.
#[derive(Debug, Serialize)]
pub(super) struct Spread {
    /// Until a node knows, of all nodes and changes.
    pub(super) a_node_ms: Times,
    /// Until the last node knows, of all changes.
    pub(super) all_nodes_ms: Times,
    /// One node's plan after it.
    pub(super) plan_ms: Times,
}

/// etcd was killed and started again.
#[derive(Debug, Serialize)]
pub(super) struct Storm {
    pub(super) etcd_ready_s: f64,
    /// From then on, until half of the nodes were in step, and until all were.
    pub(super) half_s: f64,
    pub(super) all_s: f64,
}

/// What became of acknowledged transactions.
#[derive(Debug, Serialize)]
pub(super) struct Durable {
    pub(super) kills: usize,
    pub(super) acknowledged: usize,
    /// It could not be found out.
    pub(super) unknown: usize,
    pub(super) lost: usize,
}

impl Report {
    /// In one line.
    pub fn json(&self) -> String {
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let Self { nodes, tasks, alone, watched, start, spread, storm, durable, gap } = self;
        let mut text = format!("{nodes} nodes, {tasks} tasks, {} records\n\n", start.records);
        let mut line = |what: &str, number: String| {
            let _ = writeln!(text, "{what:<56}  {number:>24}");
        };
        let times = |times: &Times| format!("{:.1} / {:.1} / {:.1} ms", times.p50, times.p99, times.max);
        line("memory of a node", format!("{:.1} MiB", start.memory_mib_per_node));
        line("all nodes list everything", format!("{:.1} s", start.seconds));
        line("writes per second, nobody watches", format!("{:.0}", alone.per_second));
        line("writes per second, every node watches", format!("{:.0}", watched.per_second));
        line("a task's change until a node knows (p50 / p99 / max)", times(&spread.a_node_ms));
        line("… until the last node knows", times(&spread.all_nodes_ms));
        line("… one node's plan after it", times(&spread.plan_ms));
        line("etcd killed: from its return until half are in step", format!("{:.1} s", storm.half_s));
        line("… until all are", format!("{:.1} s", storm.all_s));
        line("leader killed: nothing can be written", times(gap));
        let Durable { kills, acknowledged, unknown, lost } = durable;
        line("writes lost", format!("{lost} of {acknowledged}, {kills} kills"));
        line("writes that nobody knows of", unknown.to_string());
        text
    }
}
