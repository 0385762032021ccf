//! Measures what a mesh costs its clients and prints it: `cargo xtask bench lab [--json] [--quick] [--report DIR]`.
//!
//! By hand also `[--only keepalive|short|latency|stream|datagrams] [--rounds N]`.

use std::process::ExitCode;

use mesh_benches::lab::{self, Load, Plan};

fn main() -> ExitCode {
    let given = |flag: &str| std::env::args().skip(1).any(|arg| arg == flag);
    let after = |flag: &str| std::env::args().skip_while(|arg| arg != flag).nth(1);
    let dir = after("--report");
    let mut plan = if given("--quick") { Plan::QUICK } else { Plan::FULL };
    plan.rounds = after("--rounds").and_then(|rounds| rounds.parse().ok()).unwrap_or(plan.rounds);
    plan.only = after("--only").and_then(|name| Load::named(&name));
    let measured = lab::run(plan);
    let written = measured.and_then(|report| {
        dir.map_or(Ok(()), |dir| report.write(dir.as_ref()))?;
        Ok(report)
    });
    match written {
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
