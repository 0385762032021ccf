//! Measures what a mesh costs its clients and prints it: `cargo xtask bench lab [--json] [--quick] [--report DIR]`.

use std::process::ExitCode;

use mesh_benches::lab::{self, Plan};

fn main() -> ExitCode {
    let given = |flag: &str| std::env::args().skip(1).any(|arg| arg == flag);
    let dir = std::env::args().skip_while(|arg| arg != "--report").nth(1);
    let measured = lab::run(if given("--quick") { Plan::QUICK } else { Plan::FULL });
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
