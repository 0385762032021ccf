//! What was measured, as JSON and as a table.

mod chart;
mod pages;

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
    /// `direct`, `mesh-ebpf`, `mesh-nft`, `kubeproxy-nft`, `iptables`, `haproxy` or `nginx`.
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

/// What is promised of [`EBPF`].
struct Promise {
    of: Key,
    /// In comparison with whom; nobody: the number itself.
    to: Option<&'static str>,
    /// How many times as much at least.
    least: f64,
}

const fn times(least: f64, to: &'static str, metric: Metric, entry: Entry) -> Promise {
    Promise { of: (metric, entry), to: Some(to), least }
}

const PROMISES: [Promise; 8] = [
    times(0.97, DIRECT, Metric::KeepaliveRps, Entry::Vip),
    times(0.97, DIRECT, Metric::Gbps, Entry::Vip),
    times(1.15, NFT, Metric::KeepaliveRps, Entry::Remote),
    times(1.15, NFT, Metric::Gbps, Entry::Remote),
    times(3.0, NFT, Metric::ShortCps, Entry::Remote),
    times(3.0, NFT, Metric::TwoCps, Entry::Remote),
    // Whoever runs out of ports or places has a tenth left.
    Promise { of: (Metric::ShortLasting, Entry::Remote), to: None, least: 0.8 },
    Promise { of: (Metric::TwoLasting, Entry::Remote), to: None, least: 0.8 },
];

/// The head of the table of promises.
const PROMISED: &str = "mesh-ebpf            entry   to        ratio  promised  held   limit\n";

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
        Self { rows, promises: PROMISES.iter().filter_map(|promise| promise.line(samples)).collect() }
    }

    /// In one line.
    pub fn json(&self) -> String {
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text =
            "metric               entry   target            median    spread  to direct\n".to_owned();
        for Row { target, metric, entry, median, spread, ratio_to_direct } in &self.rows {
            let digits = if *median < 100.0 { 2 } else { 0 };
            let _ = writeln!(
                text,
                "{metric:<19}  {entry:<6}  {target:<13}  {median:>9.digits$}  {spread:>8.digits$}  {ratio_to_direct:>9.2}"
            );
        }
        text.push('\n');
        text.push_str(PROMISED);
        text.extend(self.promises.iter().map(String::as_str));
        text
    }
}

impl Promise {
    /// How it was kept, and the most that could be: what who costs nothing has. None: it was not measured.
    fn line(&self, samples: &Samples) -> Option<String> {
        let Self { of, to, least } = *self;
        let ratio = match to {
            Some(to) => samples.ratio(of, EBPF, to)?,
            None => samples.median(of, EBPF)?.0,
        };
        let limit = to.filter(|to| *to != DIRECT).and_then(|to| samples.ratio(of, DIRECT, to));
        let limit = limit.map_or_else(|| "-".to_owned(), |limit| format!("{limit:.2}"));
        let (metric, entry, to) = (of.0.name(), of.1.name(), to.unwrap_or("itself"));
        let held = if ratio >= least { "yes" } else { "no" };
        Some(format!(
            "{metric:<19}  {entry:<6}  {to:<8}  {ratio:>5.2}  {least:>8.2}  {held:<4}  {limit:>6}\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_compared_with_what_could_be_at_most() {
        let mut samples = Samples::default();
        for (target, value) in [(DIRECT, 21.0), (EBPF, 15.0), (NFT, 10.0)] {
            samples.add(Metric::ShortCps, Entry::Remote, target, 1, value);
            samples.add(Metric::ShortLasting, Entry::Remote, target, 1, value / 10.0);
        }
        let lines = Report::of(&[DIRECT, EBPF, NFT], &samples).promises;
        let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split_whitespace().collect()).collect();
        let short = vec!["short_cps", "remote", "mesh-nft", "1.50", "3.00", "no", "2.10"];
        let lasting = vec!["short_lasting", "remote", "itself", "1.50", "0.80", "yes", "-"];
        assert_eq!(words, [short, lasting]);
    }
}
