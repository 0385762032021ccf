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
        text.push_str("case        proto  family  path   services  median ns  99 % ns\n");
        for row in &self.rows {
            let Row { case, proto, family, path, services, ns_median, ns_p99 } = row;
            let _ = writeln!(
                text,
                "{case:<10}  {proto:<5}  IPv{family}    {path:<5}  {services:>8}  {ns_median:>9}  {ns_p99:>7}"
            );
        }
        text.push_str("\nservices  families  one change us  all ms\n");
        for ServiceChange { services, families, change_us, all_ms } in &self.program {
            let _ = writeln!(text, "{services:>8}  {families:>8}  {change_us:>13}  {all_ms:>6}");
        }
        text
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
