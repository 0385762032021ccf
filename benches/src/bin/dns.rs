//! Measures the name server and prints it: `cargo xtask bench dns [--json] [--quick]`.

use std::process::ExitCode;

use mesh_benches::dns;

fn main() -> ExitCode {
    let given = |flag: &str| std::env::args().skip(1).any(|arg| arg == flag);
    match dns::run(if given("--quick") { dns::QUICK } else { dns::FULL }) {
        Ok(report) => {
            println!("{}", if given("--json") { report.json() } else { report.table() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dns: {error:#}");
            ExitCode::FAILURE
        }
    }
}
