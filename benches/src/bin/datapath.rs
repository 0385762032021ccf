//! Measures the data plane's programs and prints what they cost: `cargo xtask bench datapath [--json]`.

use std::process::ExitCode;

use mesh_benches::datapath;

fn main() -> ExitCode {
    let json = std::env::args().skip(1).any(|arg| arg == "--json");
    match datapath::run() {
        Ok(report) => {
            println!("{}", if json { report.json() } else { report.table() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("datapath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
