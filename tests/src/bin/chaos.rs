//! Random faults in a mesh under traffic: `cargo xtask chaos --seed N --minutes M [--managed] [--dataplane ebpf|nft] [--json]`.

use std::{env, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use mesh_tests::chaos::{Options, Report, run};

fn main() -> ExitCode {
    match chaos() {
        Ok(report) if report.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chaos() -> Result<Report> {
    let (mut seed, mut minutes, mut json, mut managed, mut dataplane) = (1, 5.0, false, false, None);
    let mut args = env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().with_context(|| format!("{flag} needs a value"));
        match flag.as_str() {
            "--seed" => seed = value()?.parse().context("--seed")?,
            "--minutes" => minutes = value()?.parse().context("--minutes")?,
            "--dataplane" => match value()?.as_str() {
                plane @ ("ebpf" | "nft") => dataplane = Some(plane.to_owned()),
                other => bail!("--dataplane: there is no '{other}': ebpf or nft"),
            },
            "--managed" => managed = true,
            "--json" => json = true,
            _ => bail!(
                "there is no {flag}: use --seed N, --minutes M, --managed, --dataplane ebpf|nft and --json"
            ),
        }
    }
    let length = Duration::try_from_secs_f64(minutes * 60.0).context("--minutes")?;
    let mesh = env::current_exe().context("cannot find this program")?.with_file_name("mesh");
    let report = run(&mesh, &Options { managed, dataplane, ..Options::new(seed, length) })?;
    println!("{}", if json { serde_json::to_string(&report)? } else { report.to_string() });
    Ok(report)
}
