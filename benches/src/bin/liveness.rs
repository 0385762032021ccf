//! Measures how soon nodes that die or leave get no new flows, and how often a node is taken for dead that is not:
//! `cargo xtask bench liveness [--json] [--quick] [--rounds N] [--minutes M] [--busy N]`.

use std::process::ExitCode;
use std::time::Duration;

use mesh_benches::liveness::{self, Plan};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| args.iter().any(|arg| arg == flag);
    let value = |flag: &str| args.iter().skip_while(|arg| *arg != flag).nth(1);
    let mut plan = if given("--quick") { Plan::QUICK } else { Plan::FULL };
    if let Some(rounds) = value("--rounds").and_then(|rounds| rounds.parse().ok()) {
        plan.deaths = rounds;
    }
    let minutes = value("--minutes").and_then(|minutes| minutes.parse::<f64>().ok());
    if let Some(quiet) = minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok()) {
        plan.quiet = quiet;
    }
    if let Some(busy) = value("--busy").and_then(|busy| busy.parse().ok()) {
        plan.busy = busy;
    }
    match liveness::run(plan) {
        Ok(report) => {
            println!("{}", if given("--json") { report.json() } else { report.table() });
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("liveness: {error:#}");
            ExitCode::FAILURE
        }
    }
}
