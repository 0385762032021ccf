//! What was measured, as JSON and as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::changes::Changes;
use super::millis;
use super::plans::Plans;
use crate::times::Times;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) rows: Vec<Row>,
}

/// A mesh of some size.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    services: u16,
    tasks: usize,
    /// From the start of the agent's process until a client's datagram left through a tunnel.
    first_packet_ms: f64,
    /// … until the kernel had every service.
    programmed_ms: f64,
    /// Of that, how long the rounds of each plane took.
    programming_ms: BTreeMap<String, f64>,
    change_to_kernel_ms: Times,
    change_to_store_ms: Times,
    /// Rounds of each plane for one change.
    change_rounds_ms: BTreeMap<String, f64>,
    /// Processor time of the whole agent for one change.
    change_cpu_ms: f64,
    plan_ms: Times,
    plan_anew_ms: Times,
    copy_ms: Times,
    /// Of it some is memory that the agent shares with the programs in the kernel.
    rss_mib: f64,
    rss_private_mib: f64,
    /// After all changes.
    rss_after_mib: f64,
    idle_percent: f64,
    scrape_ms: Times,
}

/// As it comes.
pub(super) struct Measured {
    pub(super) services: u16,
    pub(super) tasks: usize,
    pub(super) first_packet: Duration,
    pub(super) programmed: Duration,
    pub(super) rounds: BTreeMap<String, f64>,
    pub(super) resident: f64,
    pub(super) resident_after: f64,
    pub(super) private: f64,
    pub(super) idle: f64,
    pub(super) scrapes: Vec<Duration>,
    pub(super) changes: Changes,
    pub(super) planned: Plans,
}

impl Row {
    pub(super) fn of(measured: Measured) -> Self {
        let Changes { until_kernel, until_stored, rounds, processor } = measured.changes;
        let Plans { anew, changed, copied } = measured.planned;
        Self {
            services: measured.services,
            tasks: measured.tasks,
            first_packet_ms: millis(measured.first_packet),
            programmed_ms: millis(measured.programmed),
            programming_ms: measured.rounds,
            change_to_kernel_ms: Times::of(until_kernel),
            change_to_store_ms: Times::of(until_stored),
            change_rounds_ms: rounds,
            change_cpu_ms: processor,
            plan_ms: Times::of(changed),
            plan_anew_ms: Times::of(anew),
            copy_ms: Times::of(copied),
            rss_mib: measured.resident,
            rss_private_mib: measured.private,
            rss_after_mib: measured.resident_after,
            idle_percent: measured.idle * 100.0,
            scrape_ms: Times::of(measured.scrapes.into_iter().map(millis).collect()),
        }
    }
}

impl Report {
    /// In one line.
    pub fn json(&self) -> String {
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let mut line = |what: &str, of: &dyn Fn(&Row) -> String| {
            let _ = write!(text, "{what:<46}");
            self.rows.iter().for_each(|row| _ = write!(text, "{:>22}", of(row)));
            text.push('\n');
        };
        let times = |times: &Times| format!("{:.1} / {:.1} ms", times.p50, times.p99);
        let all = |planes: &BTreeMap<String, f64>| planes.values().sum::<f64>();
        line("services", &|row| row.services.to_string());
        line("tasks", &|row| row.tasks.to_string());
        line("start until the first packet", &|row| format!("{:.0} ms", row.first_packet_ms));
        line("start until all is in the kernel", &|row| format!("{:.0} ms", row.programmed_ms));
        line("… rounds of that", &|row| format!("{:.0} ms", all(&row.programming_ms)));
        line("a change until the kernel has it (p50 / p99)", &|row| times(&row.change_to_kernel_ms));
        line("… until the store has it", &|row| times(&row.change_to_store_ms));
        line("… its round", &|row| format!("{:.2} ms", all(&row.change_rounds_ms)));
        line("… processor time of the agent", &|row| format!("{:.1} ms", row.change_cpu_ms));
        line("a plan after a change (p50 / p99)", &|row| times(&row.plan_ms));
        line("a plan from nothing", &|row| times(&row.plan_anew_ms));
        line("a copy of the records after a change", &|row| times(&row.copy_ms));
        line("memory", &|row| format!("{:.0} MiB", row.rss_mib));
        line("… of it the agent's alone", &|row| format!("{:.0} MiB", row.rss_private_mib));
        line("… after the changes", &|row| format!("{:.0} MiB", row.rss_after_mib));
        line("idle, of one processor", &|row| format!("{:.2} %", row.idle_percent));
        line("a scrape (p50 / p99)", &|row| times(&row.scrape_ms));
        text
    }
}
