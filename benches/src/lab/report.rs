//! What was measured, as JSON and as a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::load::Metric;
use super::samples::{Key, Samples};
use super::target::Entry;

const DIRECT: &str = "direct";
const EBPF: &str = "mesh-ebpf";
const NFT: &str = "mesh-nft";

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// By metric, entry and target.
    pub rows: Vec<Row>,
    #[serde(skip)]
    promises: Vec<String>,
}

/// One metric of one target.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `direct`, `mesh-ebpf` or `mesh-nft`.
    pub target: &'static str,
    /// `keepalive_rps`, `short_cps`, `gbps`, `p50_us`, `p99_us`, `udp_pps`, `keepalive_cpu_us`, `short_cpu_us`,
    /// `mb_cpu_us`, `udp_cpu_us`, `short_lasting`, `two_clients_lasting` or `two_clients_cps`.
    pub metric: &'static str,
    /// `local`, `remote` or `vip`.
    pub entry: &'static str,
    /// Half of the rounds had less.
    pub median: f64,
    /// The distance of the quartiles.
    pub spread: f64,
    /// How many times that of `direct`: the median of the rounds' ratios.
    pub ratio_to_direct: f64,
}

/// What is promised: of what, in comparison with whom, and how many times as much at least.
const PROMISES: [(Key, &str, f64); 8] = [
    ((Metric::KeepaliveRps, Entry::Vip), DIRECT, 0.97),
    ((Metric::Gbps, Entry::Vip), DIRECT, 0.97),
    ((Metric::KeepaliveRps, Entry::Remote), NFT, 1.15),
    ((Metric::Gbps, Entry::Remote), NFT, 1.15),
    ((Metric::ShortCps, Entry::Remote), NFT, 3.0),
    ((Metric::ShortCps, Entry::Local), NFT, 3.0),
    ((Metric::ShortCps, Entry::Vip), NFT, 3.0),
    ((Metric::TwoCps, Entry::Remote), NFT, 3.0),
];

impl Report {
    pub(super) fn of(targets: &[&'static str], samples: &Samples) -> Self {
        let mut rows = Vec::new();
        for key in samples.keys() {
            for target in targets {
                let Some((median, spread)) = samples.median(key, target) else { continue };
                let ratio_to_direct = samples.ratio(key, target, DIRECT).unwrap_or_default();
                let (metric, entry) = (key.0.name(), key.1.name());
                rows.push(Row { target, metric, entry, median, spread, ratio_to_direct });
            }
        }
        let promises = PROMISES.iter().filter_map(|(key, to, least)| {
            let ratio = samples.ratio(*key, EBPF, to)?;
            let (metric, entry) = (key.0.name(), key.1.name());
            let held = if ratio >= *least { "yes" } else { "no" };
            Some(format!("{metric:<19}  {entry:<6}  {to:<8}  {ratio:>5.2}  {least:>8.2}  {held}\n"))
        });
        Self { rows, promises: promises.collect() }
    }

    /// In one line.
    pub fn json(&self) -> String {
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = "metric               entry   target        median    spread  to direct\n".to_owned();
        for Row { target, metric, entry, median, spread, ratio_to_direct } in &self.rows {
            let digits = if *median < 100.0 { 2 } else { 0 };
            let _ = writeln!(
                text,
                "{metric:<19}  {entry:<6}  {target:<9}  {median:>9.digits$}  {spread:>8.digits$}  {ratio_to_direct:>9.2}"
            );
        }
        text.push_str("\nmesh-ebpf            entry   to        ratio  promised  held\n");
        text.extend(self.promises.iter().map(String::as_str));
        text
    }
}
