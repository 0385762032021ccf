//! Measures what a mesh costs its clients and prints it: `cargo xtask bench lab [--json] [--quick]`.

use std::process::ExitCode;

use mesh_benches::lab::{self, Plan};

fn main() -> ExitCode {
    let given = |flag: &str| std::env::args().skip(1).any(|arg| arg == flag);
    match lab::run(if given("--quick") { Plan::QUICK } else { Plan::FULL }) {
        Ok(report) => {
            println!("{}", if given("--json") { report.json() } else { report.table() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
