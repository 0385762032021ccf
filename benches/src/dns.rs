//! What the name server costs: a task asks the agent, dnsmasq and unbound for the same local name, by dnsperf.
//!
//! All are asked from one task's namespace, where the two others listen beside ours; the agent is asked as tasks ask it,
//! at 127.0.0.11:53. Each has one processor, the same for all; dnsperf has the other. They take turns, round after round,
//! for what else the machine does comes and goes.

mod dnsperf;
mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_tests::{Lab, eventually};

use self::dnsperf::Dnsperf;
use self::server::{NAMES, Server};
use crate::lab::{mesh_program, samples::quantile};

/// How many rounds there are: about four minutes. Many short ones, as with the lab.
pub const FULL: usize = 30;
/// One minute.
pub const QUICK: usize = 5;

/// The name that is asked for, with the network's, so that it means the same to all.
const NAME: &str = "web.app";
/// Questions a second for the times of answers: less than any of them can take.
const RATE: u32 = 20_000;
/// Seconds of a measurement.
const SECONDS: u32 = 1;
const READY: Duration = Duration::from_secs(30);

/// Medians of the rounds, by what they are of: `mesh_qps`, `dnsmasq_p99_us`, `unbound_cpu_us`; and of the rounds' own
/// ratios, for rounds differ more than what is compared: `mesh_to_unbound_qps`.
#[derive(Debug)]
pub struct Report(BTreeMap<String, f64>);

/// Measures in so many rounds, with the `mesh` program that lies beside this one.
pub fn run(rounds: usize) -> Result<Report> {
    let lab = Lab::builder(mesh_program()?).nodes(1).build()?;
    lab.start_agents(READY)?;
    let node = lab.node("n1")?;
    for words in [
        "network create app",
        "service create --name web --network app",
        "task run --detach --name asker --network app -- sleep 1000000",
    ] {
        node.mesh(words.split(' '))?.ok()?;
    }
    let asker = node.mesh_json(["task", "inspect", "asker"])?;
    let inside = asker["Origin"]["Pid"].as_u64().with_context(|| format!("no pid: {asker}"))?;
    let servers = [
        Server::mesh(node)?,
        Server::dnsmasq(node, inside)?,
        Server::unbound(node, inside, &lab.dir().join("unbound.conf"))?,
    ];
    let dnsperf = Dnsperf::new(node, inside, &lab.dir().join("questions"))?;
    for server in &servers {
        eventually(READY, server.name, || dnsperf.run(server, 1, Some(100)).map(drop))?;
    }
    let mut samples: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let mut turn: Vec<_> = servers.iter().collect();
        // Nobody is always first, nor always after the same other.
        if round.is_multiple_of(2) {
            turn.reverse();
        }
        for server in turn {
            let before = server.worked()?;
            let full = dnsperf.run(server, SECONDS, None)?;
            let cpu = (server.worked()? - before).as_secs_f64() * 1e6 / full.answers;
            let p99 = dnsperf.run(server, SECONDS, Some(RATE))?.p99;
            for (what, value) in [("qps", full.per_second), ("p99_us", p99), ("cpu_us", cpu)] {
                eprintln!("  {:<8} {what:<7} {value:.1}", server.name);
                samples.entry(format!("{}_{what}", server.name)).or_default().push(value);
            }
        }
    }
    for (what, other) in
        ["qps", "p99_us", "cpu_us"].into_iter().flat_map(|what| [(what, NAMES[1]), (what, NAMES[2])])
    {
        let of = |name| samples.get(&format!("{name}_{what}")).into_iter().flatten();
        let ratios = of(NAMES[0]).zip(of(other)).map(|(ours, theirs)| ours / theirs).collect();
        samples.insert(format!("mesh_to_{other}_{what}"), ratios);
    }
    let median = |(what, mut values): (String, Vec<f64>)| Some((what, quantile(&mut values, 0.5)?));
    Ok(Report(samples.into_iter().filter_map(median).collect()))
}

impl Report {
    /// In one line.
    pub fn json(&self) -> String {
        let rounded = |(what, value): (&String, &f64)| (what.clone(), (value * 100.0).round() / 100.0);
        let all: BTreeMap<_, _> = self.0.iter().map(rounded).collect();
        // Numbers and words only: nothing that could fail.
        serde_json::to_string(&all).unwrap_or_default()
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = "server      answers/s   p99, us   processor, us per answer\n".to_owned();
        for name in NAMES {
            let of = |what: &str| self.0.get(&format!("{name}_{what}")).copied().unwrap_or_default();
            let (qps, p99, cpu) = (of("qps"), of("p99_us"), of("cpu_us"));
            let _ = writeln!(text, "{name:<8}  {qps:>11.0}  {p99:>8.0}  {cpu:>24.2}");
        }
        text.push_str("\nmesh to     answers/s   p99, us   processor, us per answer\n");
        for name in &NAMES[1..] {
            let of = |what: &str| self.0.get(&format!("mesh_to_{name}_{what}")).copied().unwrap_or_default();
            let (qps, p99, cpu) = (of("qps"), of("p99_us"), of("cpu_us"));
            let _ = writeln!(text, "{name:<8}  {qps:>11.2}  {p99:>8.2}  {cpu:>24.2}");
        }
        text
    }
}
