//! Every planned change under load: `cargo xtask lossless [--requests N] [--rate N] [--json]`.

use std::{env, process::ExitCode};

use anyhow::{Context, Result, bail};
use mesh_tests::lossless::{Options, Report, run};

fn main() -> ExitCode {
    match lossless() {
        Ok(report) if report.failed == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lossless: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn lossless() -> Result<Report> {
    let (mut options, mut json) = (Options { requests: 200_000, rate: 500 }, false);
    let mut args = env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("{flag} needs a number"));
        match flag.as_str() {
            "--requests" => options.requests = value()?.parse().context("--requests")?,
            "--rate" => options.rate = value()?.parse().context("--rate")?,
            "--json" => json = true,
            _ => bail!("there is no {flag}: use --requests N, --rate N and --json"),
        }
    }
    let mesh = env::current_exe().context("cannot find this program")?.with_file_name("mesh");
    let report = run(&mesh, options)?;
    println!("{}", if json { serde_json::to_string(&report)? } else { report.to_string() });
    Ok(report)
}
