//! What was measured, as JSON and as a table.

use std::fmt::Write as _;

use serde::Serialize;

/// Everything.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What the program that does nothing takes: median.
    pub empty_ns: u32,
    /// Packets.
    pub rows: Vec<Row>,
    /// Changes.
    pub program: Vec<ServiceChange>,
    /// Katran, if it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub katran: Option<Beside>,
}

/// Another balancer, which had its turns between ours.
#[derive(Debug, Default, Serialize)]
pub struct Beside {
    /// Flows that it remembers, of all processors together.
    pub flows: u32,
    /// What the program that does nothing takes at its hook: median.
    pub empty_ns: u32,
    /// Packets.
    pub rows: Vec<Compared>,
}

/// A kind of packet.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// What it takes there.
    #[serde(flatten)]
    pub row: Row,
    /// Our median by that. Below 1 we are faster.
    pub ratio: f64,
}

/// A kind of packet.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `not_ours`, `new_flow`, `known_flow` or `flows_100k`.
    pub case: &'static str,
    /// `tcp` or `udp`.
    pub proto: &'static str,
    /// 4 or 6.
    pub family: u8,
    /// `local` or `encap`.
    pub path: &'static str,
    /// How many services are published.
    pub services: u32,
    /// Half of the packets took no longer.
    pub ns_median: u32,
    /// 99 of 100 took no longer.
    pub ns_p99: u32,
    /// What the program that does nothing took meanwhile: median. A processor that others share is not always as fast.
    pub empty_ns: u32,
}

/// What the agent takes to write the maps.
#[derive(Debug, Serialize)]
pub struct ServiceChange {
    /// How many services there are.
    pub services: u32,
    /// 1: IPv4 alone; 2: IPv6, too.
    pub families: usize,
    /// One task comes or goes: from the new plan to the last write. Processor time, median.
    pub change_us: u64,
    /// All services into empty maps.
    pub all_ms: u64,
}

const CASES: [&str; 4] = ["not_ours", "new_flow", "known_flow", "flows_100k"];

impl Beside {
    /// Compares rows with ours of the same kind.
    pub(super) fn new(flows: u32, empty_ns: u32, rows: Vec<Row>, ours: &[Row]) -> Self {
        let compared = |row: Row| {
            let ours = ours.iter().find(|ours| ours.order() == row.order())?;
            let ratio = f64::from(ours.ns_median) / f64::from(row.ns_median);
            Some(Compared { row, ratio: (ratio * 1000.0).round() / 1000.0 })
        };
        Self { flows, empty_ns, rows: rows.into_iter().filter_map(compared).collect() }
    }
}

impl Row {
    /// Rows of one case belong together.
    pub(super) fn order(&self) -> impl Ord + use<> {
        let case = CASES.iter().position(|case| *case == self.case);
        (case, self.proto, self.family, self.path, self.services)
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
        let mut text = format!("nothing at all: {} ns\n\n", self.empty_ns);
        text.push_str("case        proto  family  path   services  median ns  99 % ns  nothing ns\n");
        for row in &self.rows {
            let Row { case, proto, family, path, services, ns_median, ns_p99, empty_ns } = row;
            let _ = writeln!(
                text,
                "{case:<10}  {proto:<5}  IPv{family}    {path:<5}  {services:>8}  {ns_median:>9}  {ns_p99:>7}  {empty_ns:>10}"
            );
        }
        text.push_str("\nservices  families  one change us  all ms\n");
        for ServiceChange { services, families, change_us, all_ms } in &self.program {
            let _ = writeln!(text, "{services:>8}  {families:>8}  {change_us:>13}  {all_ms:>6}");
        }
        if let Some(katran) = &self.katran {
            katran.table(&mut text);
        }
        text
    }
}

impl Beside {
    fn table(&self, text: &mut String) {
        let _ = write!(text, "\nKatran, {} flows, nothing at all: {} ns\n\n", self.flows, self.empty_ns);
        text.push_str("case        proto  family  services  median ns  99 % ns  Mesh / Katran\n");
        for Compared { row, ratio } in &self.rows {
            let Row { case, proto, family, path: _, services, ns_median, ns_p99, empty_ns: _ } = row;
            let _ = writeln!(
                text,
                "{case:<10}  {proto:<5}  IPv{family}    {services:>8}  {ns_median:>9}  {ns_p99:>7}  {ratio:>13.2}"
            );
        }
    }
}

/// The value that so many of them do not exceed. 0 of none.
pub(super) fn quantile(values: &mut [u32], share: f64) -> u32 {
    if values.is_empty() {
        return 0;
    }
    let index = ((values.len() - 1) as f64 * share) as usize;
    *values.select_nth_unstable(index).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let mut values: Vec<u32> = (1..=101).rev().collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&mut values, share)), [1, 51, 100, 101]);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }
}
