//! Measures a cluster of simulated nodes on a real etcd and prints what came of it:
//! `cargo xtask bench cluster [--json] [--quick]`. It fails where a promise is broken.

use std::process::ExitCode;

use mesh_benches::cluster::{self, Plan};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| args.iter().any(|arg| arg == flag);
    let number = |flag: &str| args.iter().skip_while(|arg| *arg != flag).nth(1)?.parse().ok();
    let plan = if given("--quick") { Plan::QUICK } else { Plan::FULL };
    match cluster::run(plan.sized(number("--nodes"), number("--tasks"))) {
        Ok(report) => {
            println!("{}", if given("--json") { report.json() } else { report.table() });
            let broken = report.broken();
            broken.iter().for_each(|promise| eprintln!("cluster: broken promise: {promise}"));
            if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
