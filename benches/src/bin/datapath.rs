//! Measures the data plane's programs and prints what they cost: `cargo xtask bench datapath`.

use std::path::PathBuf;
use std::process::ExitCode;

use mesh_benches::datapath;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let json = args.iter().any(|arg| arg == "--json");
    let katran = args.iter().position(|arg| arg == "--katran");
    let katran = katran.and_then(|at| args.get(at + 1)).map(PathBuf::from);
    match datapath::run(katran.as_deref()) {
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
