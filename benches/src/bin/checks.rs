//! Measures what health checks cost a node: `cargo xtask bench checks [--json] [--quick]`.

use std::process::ExitCode;

use mesh_benches::checks::{self, Plan};

fn main() -> ExitCode {
    let given = |flag: &str| std::env::args().skip(1).any(|arg| arg == flag);
    match checks::run(if given("--quick") { Plan::QUICK } else { Plan::FULL }) {
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
