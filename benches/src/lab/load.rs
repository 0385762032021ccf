//! What is done to a target, by programs that others know, too; and what they said of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::server::SINK;
use super::target::Path;

/// How long a program may take to start and to end.
const GRACE: Duration = Duration::from_secs(20);
/// Connections at once, where there are several.
const CONNECTIONS: u32 = 16;
/// Bytes of a datagram.
const DATAGRAM: u32 = 64;

/// Has each request be the only one of its connection.
const CLOSE: [&str; 2] = ["--header", "Connection: close"];

/// What a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Metric {
    /// Requests a second over 16 connections that stay.
    KeepaliveRps,
    /// Requests a second, each over a connection of its own; 16 at once, all from one address.
    ShortCps,
    /// Gbit/s of one TCP stream to the server.
    Gbps,
    /// Microseconds of a request over the only connection: median.
    P50Us,
    /// The same: 99 of 100 take no longer.
    P99Us,
    /// Datagrams of 64 bytes that arrive, a second.
    UdpPps,
    /// Microseconds of processor time that a request costs everybody: client, nodes and server. Over connections
    /// that stay. However busy others keep the machine, it is about the same.
    KeepaliveCpuUs,
    /// The same over a connection of its own.
    ShortCpuUs,
    /// Microseconds of a megabyte in one TCP stream.
    MbCpuUs,
    /// Microseconds of a datagram that arrives.
    UdpCpuUs,
    /// Short connections a second of one client after a minute of them, as a share of those of its first 10 s.
    ShortLasting,
    /// The same of two clients at once.
    TwoLasting,
    /// What is left of the two clients' after that minute.
    TwoCps,
}

impl Metric {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KeepaliveRps => "keepalive_rps",
            Self::ShortCps => "short_cps",
            Self::Gbps => "gbps",
            Self::P50Us => "p50_us",
            Self::P99Us => "p99_us",
            Self::UdpPps => "udp_pps",
            Self::KeepaliveCpuUs => "keepalive_cpu_us",
            Self::ShortCpuUs => "short_cpu_us",
            Self::MbCpuUs => "mb_cpu_us",
            Self::UdpCpuUs => "udp_cpu_us",
            Self::ShortLasting => "short_lasting",
            Self::TwoLasting => "two_clients_lasting",
            Self::TwoCps => "two_clients_cps",
        }
    }
}

/// A run of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Requests over connections that stay.
    Keepalive,
    /// Requests over connections of their own.
    Short,
    /// One request at a time.
    Latency,
    /// One TCP stream.
    Stream,
    /// UDP.
    Datagrams,
}

impl Load {
    pub(super) const ALL: [Self; 5] =
        [Self::Keepalive, Self::Short, Self::Latency, Self::Stream, Self::Datagrams];

    /// By its name on the command line.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|load| format!("{load:?}").eq_ignore_ascii_case(name))
    }

    /// Runs it for some seconds.
    pub(super) fn run(self, path: &Path<'_>, seconds: u32) -> Result<Vec<(Metric, f64)>> {
        let before = path.worked()?;
        let (mut values, done) = self.work(path, seconds)?;
        let cpu = (path.worked()? - before).as_secs_f64() * 1e6 / done;
        values.extend(self.cost().map(|metric| (metric, cpu)));
        Ok(values)
    }

    /// What its processor time is of.
    const fn cost(self) -> Option<Metric> {
        match self {
            Self::Keepalive => Some(Metric::KeepaliveCpuUs),
            Self::Short => Some(Metric::ShortCpuUs),
            Self::Stream => Some(Metric::MbCpuUs),
            Self::Datagrams => Some(Metric::UdpCpuUs),
            // It waits more than it works.
            Self::Latency => None,
        }
    }

    /// What was measured; and how much was done: requests, megabytes or datagrams.
    fn work(self, path: &Path<'_>, seconds: u32) -> Result<(Vec<(Metric, f64)>, f64)> {
        Ok(match self {
            Self::Keepalive => {
                let said = wrk(path, CONNECTIONS, seconds, &[])?;
                (vec![(Metric::KeepaliveRps, said.per_second)], said.requests)
            }
            Self::Short => {
                let said = wrk(path, CONNECTIONS, seconds, &CLOSE)?;
                (vec![(Metric::ShortCps, said.per_second)], said.requests)
            }
            Self::Latency => {
                let said = wrk(path, 1, seconds, &[])?;
                (vec![(Metric::P50Us, said.p50), (Metric::P99Us, said.p99)], said.requests)
            }
            Self::Stream => {
                // Whatever the machine prefers, it is the kernel's default, and does not pace.
                let said = iperf3(path, seconds, &["--congestion", "cubic"])?;
                let sum = &said["end"]["sum_received"];
                let gbps = number(&sum["bits_per_second"])? / 1e9;
                (vec![(Metric::Gbps, gbps)], number(&sum["bytes"])? / 1e6)
            }
            Self::Datagrams => {
                let length = DATAGRAM.to_string();
                let said = iperf3(path, seconds, &["--udp", "--bitrate", "0", "--length", &length])?;
                let sum = &said["end"]["sum"];
                let arrived = number(&sum["packets"])? - number(&sum["lost_packets"])?;
                (vec![(Metric::UdpPps, arrived / number(&sum["seconds"])?)], arrived)
            }
        })
    }
}

/// Short connections a second.
pub(super) fn short(path: &Path<'_>, seconds: u32) -> Result<f64> {
    Ok(wrk(path, CONNECTIONS, seconds, &CLOSE)?.per_second)
}

fn wrk(path: &Path<'_>, connections: u32, seconds: u32, options: &[&str]) -> Result<Wrk> {
    let (connections, duration) = (connections.to_string(), seconds.to_string());
    let mut argv = vec!["wrk", "--threads", "1", "--connections", &connections, "--duration", &duration];
    let url = path.url();
    argv.push("--latency");
    argv.extend(options);
    argv.push(&url);
    let said = path.command(&argv).timeout(limit(seconds)).ok()?;
    let read = Wrk::read(&said).with_context(|| format!("wrk said:\n{said}"))?;
    if let Some(errors) = &read.errors {
        eprintln!("  wrk: {errors}");
    }
    Ok(read)
}

fn iperf3(path: &Path<'_>, seconds: u32, options: &[&str]) -> Result<Value> {
    let (address, port) = (path.address.to_string(), SINK.to_string());
    let seconds_text = seconds.to_string();
    let mut argv = vec!["iperf3", "--client", &address, "--port", &port, "--time", &seconds_text, "--json"];
    argv.extend(options);
    let said = path.command(&argv).timeout(limit(seconds)).run()?;
    // Its own errors are in what it prints.
    let read: Value = serde_json::from_str(&said.stdout)
        .with_context(|| format!("iperf3 said:\n{}{}", said.stdout, said.stderr))?;
    ensure!(read["error"].is_null(), "iperf3 says {}", read["error"]);
    Ok(read)
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into()) + GRACE
}

fn number(value: &Value) -> Result<f64> {
    value.as_f64().with_context(|| format!("iperf3 says {value} where a number belongs"))
}

/// What wrk says.
#[derive(Debug, PartialEq)]
struct Wrk {
    requests: f64,
    per_second: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
    /// Its line about them, if there were some.
    errors: Option<String>,
}

impl Wrk {
    fn read(said: &str) -> Result<Self> {
        let value = |label: &str| -> Result<&str> {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
            Ok(line.with_context(|| format!("no line begins with {label}"))?.trim())
        };
        let wrong = said.lines().find(|line| line.contains("Non-2xx"));
        ensure!(wrong.is_none(), "answers of another kind: {}", wrong.unwrap_or_default());
        let errors = value("Socket errors:").ok().map(|errors| format!("socket errors: {errors}"));
        let requests = said.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
        Ok(Self {
            requests: requests.context("it does not say how many requests there were")?,
            per_second: value("Requests/sec:")?.parse()?,
            p50: micros(value("50%")?)?,
            p99: micros(value("99%")?)?,
            errors,
        })
    }
}

/// `87.00us`, `1.21ms` or `2.00s`
fn micros(text: &str) -> Result<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6)];
    let read = units.iter().find_map(|(unit, factor)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * factor)
    });
    read.with_context(|| format!("{text} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 2s test @ http://127.0.0.1:80/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   202.81us  148.42us   4.60ms   89.91%
    Req/Sec    72.11k     8.32k   88.17k    61.90%
  Latency Distribution
     50%  180.00us
     75%  242.00us
     90%  331.00us
     99%    1.25ms
  150652 requests in 2.10s, 39.22MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
Requests/sec:  71738.18
Transfer/sec:     18.68MB
";

    #[test]
    fn what_wrk_says_is_read_with_its_units_and_errors() {
        let read = Wrk::read(SAID).unwrap();
        assert_eq!(read.requests, 150_652.0);
        assert_eq!((read.per_second, read.p50, read.p99), (71738.18, 180.0, 1250.0));
        assert_eq!(read.errors.as_deref(), Some("socket errors: connect 0, read 3, write 0, timeout 1"));
    }

    #[test]
    fn answers_of_another_kind_and_half_answers_are_errors() {
        let refused = format!("{SAID}  Non-2xx or 3xx responses: 7\n");
        assert!(Wrk::read(&refused).is_err());
        assert!(Wrk::read("unable to connect").is_err());
    }
}
