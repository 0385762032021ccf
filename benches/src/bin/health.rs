//! Measures the checker of tasks' health and prints it: `cargo xtask bench health [--json] [--quick]`.

use std::process::ExitCode;

use mesh_benches::health;

fn main() -> ExitCode {
    let given = |flag: &str| std::env::args().skip(1).any(|arg| arg == flag);
    if given(health::LISTEN) {
        return done(health::listen());
    }
    // In a namespace of its own, so that addresses of tasks can be this machine's.
    if !given(health::INSIDE) {
        return done(health::enter());
    }
    match health::run(if given("--quick") { health::QUICK } else { health::FULL }) {
        Ok(report) => {
            println!("{}", if given("--json") { report.json() } else { report.table() });
            ExitCode::SUCCESS
        }
        Err(error) => done(Err(error)),
    }
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("health: {error:#}");
            ExitCode::FAILURE
        }
    }
}
