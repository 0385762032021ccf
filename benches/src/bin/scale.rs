//! Measures what a large mesh costs one node: `cargo xtask bench scale [--json] [--quick]`.
//!
//! By itself it also takes `--services N` for one size.

use std::process::ExitCode;

use mesh_benches::scale::{self, Plan};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| args.iter().any(|arg| arg == flag);
    let value = |flag: &str| args.iter().skip_while(|arg| *arg != flag).nth(1);
    let mut plan = if given("--quick") { Plan::quick() } else { Plan::full() };
    if let Some(services) = value("--services").and_then(|services| services.parse().ok()) {
        plan.services = vec![services];
    }
    match scale::run(&plan) {
        Ok(report) => {
            print!("{}", if given("--json") { report.json() + "\n" } else { report.table() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
