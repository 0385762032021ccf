//! What was measured, as JSON and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::Plan;
use crate::times::Times;

/// What is promised, ms: a change to all nodes of a full mesh, p99, and the longest time without a write when a leader is lost.
const SPREAD_P99: f64 = 250.0;
const GAP: f64 = 2000.0;

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
    /// Which promises are broken, in words. How soon a change is everywhere is promised of a full mesh only: a small one
    /// proves nothing.
    pub fn broken(&self) -> Vec<String> {
        let Self { nodes, spread, durable, gap, .. } = self;
        let mut broken = Vec::new();
        if durable.lost > 0 {
            broken
                .push(format!("{} of {} acknowledged writes were lost", durable.lost, durable.acknowledged));
        }
        let all = spread.all_nodes_ms.p99;
        if *nodes >= Plan::FULL.nodes && all > SPREAD_P99 {
            broken.push(format!(
                "a change took {all:.0} ms (p99) to all of {nodes} nodes, and {SPREAD_P99:.0} are promised"
            ));
        }
        if gap.max > GAP {
            broken.push(format!(
                "nothing could be written for {:.0} ms when a leader was lost, and {GAP:.0} are promised",
                gap.max
            ));
        }
        broken
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_told() {
        let report = |nodes, lost, spread: f64, gap: f64| {
            let times = |value| Times::of(vec![value]);
            let writes = || Writes { per_second: 1.0 };
            let spread = Spread { a_node_ms: times(1.0), all_nodes_ms: times(spread), plan_ms: times(1.0) };
            Report {
                nodes,
                tasks: 1,
                alone: writes(),
                watched: writes(),
                start: Start { records: 1, seconds: 1.0, memory_mib_per_node: 1.0 },
                spread,
                storm: Storm { etcd_ready_s: 1.0, half_s: 1.0, all_s: 1.0 },
                durable: Durable { kills: 1, acknowledged: 100, unknown: 0, lost },
                gap: times(gap),
            }
        };
        assert!(report(1000, 0, 250.0, 2000.0).broken().is_empty());
        assert!(report(50, 0, 9999.0, 0.0).broken().is_empty(), "a small mesh");
        assert_eq!(report(50, 1, 0.0, 0.0).broken(), ["1 of 100 acknowledged writes were lost"]);
        let all = report(1000, 2, 251.0, 2001.0).broken();
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(
            all[1].contains("251 ms (p99) to all of 1000 nodes") && all[2].contains("2001 ms"),
            "{all:?}"
        );
    }
}
