//! dnsperf, and what it says.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::Node;

use super::NAME;
use super::server::Server;
use crate::lab::samples::quantile;

/// Its processor.
const CPU: &str = "1";
/// How long it may take to start and to end.
const GRACE: Duration = Duration::from_secs(20);

/// The client.
pub(super) struct Dnsperf<'a> {
    node: &'a Node,
    inside: String,
    questions: String,
}

/// What it says of one run.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    pub(super) answers: f64,
    pub(super) per_second: f64,
    /// Microseconds; 99 of 100 answers took no longer. Zero where it was not told of each.
    pub(super) p99: f64,
}

impl<'a> Dnsperf<'a> {
    pub(super) fn new(node: &'a Node, inside: u64, file: &Path) -> Result<Self> {
        fs::write(file, format!("{NAME} A\n")).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { node, inside: inside.to_string(), questions: file.display().to_string() })
    }

    /// Ten sockets with at most a hundred questions out, as fast as they are answered; or so many a second, of which
    /// the time of each is told.
    pub(super) fn run(&self, server: &Server, seconds: u32, rate: Option<u32>) -> Result<Said> {
        let (address, port) = (server.address.to_string(), server.port.to_string());
        let (seconds_text, rate_text) = (seconds.to_string(), rate.unwrap_or_default().to_string());
        let mut argv =
            vec!["nsenter", "-t", &self.inside, "-n", "--", "taskset", "--cpu-list", CPU, "dnsperf"];
        argv.extend(["-s", &address, "-p", &port, "-d", &self.questions, "-l", &seconds_text]);
        argv.extend(["-c", "10", "-q", "100"]);
        if rate.is_some() {
            argv.extend(["-Q", &rate_text, "-v"]);
        }
        let limit = Duration::from_secs(seconds.into()) + GRACE;
        let said = self.node.command(&argv).timeout(limit).ok()?;
        Said::read(&said).with_context(|| format!("{} is asked", server.name))
    }
}

impl Said {
    fn read(said: &str) -> Result<Self> {
        let value = |label: &str| -> Result<f64> {
            let rest = said.lines().find_map(|line| line.trim().strip_prefix(label));
            let word = rest.and_then(|rest| rest.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).with_context(|| format!("no number after {label}"))
        };
        let mut times = Vec::new();
        // > NOERROR web.app A 0.000059
        for line in said.lines().filter_map(|line| line.strip_prefix("> ")) {
            ensure!(line.starts_with("NOERROR "), "an answer of another kind: {line}");
            let time: f64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
            times.push(time * 1e6);
        }
        let (answers, lost) = (value("Queries completed:")?, value("Queries lost:")?);
        ensure!(answers > 0.0 && lost == 0.0, "{answers} were answered, {lost} were not");
        let right =
            said.lines().any(|line| line.trim().starts_with("Response codes:") && line.contains("NOERROR"));
        ensure!(right, "it was not the name's address that was answered");
        let p99 = quantile(&mut times, 0.99).unwrap_or_default();
        Ok(Self { answers, per_second: value("Queries per second:")?, p99 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "> NOERROR web.app A 0.000100\n> NOERROR web.app A 0.000300\nStatistics:\n
  Queries sent:         2
  Queries completed:    2 (100.00%)
  Queries lost:         0 (0.00%)

  Response codes:       NOERROR 2 (100.00%)
  Run time (s):         0.1
  Queries per second:   20.500000
";

    #[test]
    fn what_it_says_is_read() {
        let said = Said::read(SAID).unwrap();
        assert_eq!((said.answers, said.per_second, said.p99.round()), (2.0, 20.5, 298.0));
        assert!(Said::read(&SAID.replace("NOERROR", "REFUSED")).is_err());
        assert!(Said::read(&SAID.replace("lost:         0", "lost:         1")).is_err());
        assert!(Said::read("").is_err());
    }
}
