//! What was measured, as JSON and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::Plan;
use crate::times::Times;

/// What is promised, ms.
const DEAD_P99: f64 = 900.0;
const KILLED_P99: f64 = 100.0;
const LEFT_P99: f64 = 50.0;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    dataplane: String,
    /// How often a node died.
    deaths: usize,
    /// From then until a node's kernel had sent it its last new flow, of all rounds and other nodes.
    dead_ms: Times,
    /// How often a task was killed.
    kills: usize,
    /// From then on, the same.
    killed_ms: Times,
    /// How often a node was drained.
    leaves: usize,
    /// From when it was asked for, the same.
    left_ms: Times,
    quiet: Quiet,
}

/// Nobody dies.
#[derive(Debug, Serialize)]
pub(super) struct Quiet {
    pub(super) minutes: f64,
    /// Loops.
    pub(super) busy: usize,
    /// Packets.
    pub(super) dropped: u64,
    /// How often one node took another for dead.
    pub(super) false_masks: usize,
}

impl Report {
    pub(super) fn of(
        dataplane: &str,
        plan: Plan,
        deaths: Vec<f64>,
        kills: Vec<f64>,
        leaves: Vec<f64>,
        quiet: Quiet,
    ) -> Self {
        Self {
            dataplane: dataplane.to_owned(),
            deaths: plan.deaths,
            dead_ms: Times::of(deaths),
            kills: plan.kills,
            killed_ms: Times::of(kills),
            leaves: plan.leaves,
            left_ms: Times::of(leaves),
            quiet,
        }
    }

    /// Whether it is as promised.
    pub fn holds(&self) -> bool {
        self.dead_ms.p99 <= DEAD_P99
            && self.killed_ms.p99 <= KILLED_P99
            && self.left_ms.p99 <= LEFT_P99
            && self.quiet.false_masks == 0
    }

    /// In one line.
    pub fn json(&self) -> String {
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let Self { dataplane, deaths, dead_ms, kills, killed_ms, leaves, left_ms, quiet } = self;
        let mut text = format!("{dataplane}: {deaths} deaths, {kills} kills, {leaves} leaves\n\n");
        let mut line = |what: &str, number: String, promised: String| {
            let _ = writeln!(text, "{what:<58}  {number:>26}  {promised:>12}");
        };
        let times = |times: &Times| format!("{:.0} / {:.0} / {:.0} ms", times.p50, times.p99, times.max);
        line("", "p50 / p99 / max".to_owned(), "promised p99".to_owned());
        line("a node dies: its last new flow", times(dead_ms), format!("{DEAD_P99:.0} ms"));
        line("a task is killed: its last new flow", times(killed_ms), format!("{KILLED_P99:.0} ms"));
        line("a node is drained: its last new flow", times(left_ms), format!("{LEFT_P99:.0} ms"));
        let Quiet { minutes, busy, dropped, false_masks } = quiet;
        let what = format!("taken for dead in {minutes:.1} min, {busy} busy loops, {dropped} packets lost");
        line(&what, false_masks.to_string(), "0".to_owned());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_promise_broken_is_enough() {
        let report = |dead: f64, killed: f64, left: f64, false_masks: usize| {
            let quiet = Quiet { minutes: 1.0, busy: 0, dropped: 1, false_masks };
            Report::of("ebpf", Plan::QUICK, vec![dead], vec![killed], vec![left], quiet)
        };
        assert!(report(900.0, 100.0, 50.0, 0).holds());
        assert!(!report(901.0, 100.0, 50.0, 0).holds());
        assert!(!report(900.0, 100.0, 51.0, 0).holds());
        assert!(!report(900.0, 101.0, 50.0, 0).holds());
        assert!(!report(900.0, 100.0, 50.0, 1).holds());
    }
}
