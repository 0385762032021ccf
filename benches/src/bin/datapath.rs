//! Measures the data plane's programs and prints what they cost: `cargo xtask bench datapath`.

use std::process::ExitCode;

use mesh_benches::datapath::{self, Other};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let json = args.iter().any(|arg| arg == "--json");
    let after = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)
    };
    let flows = after("--katran-flows").map(|flows| flows.parse());
    let Ok(flows) = flows.unwrap_or(Ok(Other::FLOWS)) else {
        eprintln!("datapath: --katran-flows is no number");
        return ExitCode::FAILURE;
    };
    let katran = after("--katran").map(|object| Other { object: object.into(), flows });
    match datapath::run(katran.as_ref()) {
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
