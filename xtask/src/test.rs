//! `test`: setup if something is missing, then the tests, then one line that sums them up.
//!
//! The product's own tests (`mesh-tests`, `--test mesh`) run twice, once on each data plane, but for those that no packet
//! takes part in.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitStatus, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{Rung, fuzz, setup, shell};

/// Packages whose tests need neither root nor a kernel feature.
const PURE: [&str; 3] = ["mesh-core", "mesh-ebpf", "xtask"];

/// How many tests run at once, where nobody says otherwise: those of a lab wait more than they compute.
const THREADS: usize = 4;

/// Tests of what is the same on both data planes, because no packet of a task's client takes part.
const ANY_PLANE: [&str; 6] =
    ["certificates::", "logs::", "refusals::", "template::", "web::", "managed::wrong_usage"];

/// Tells the Lab which data plane its agents use.
const DATAPLANE: &str = "MESH_TEST_DATAPLANE";

pub(crate) fn run(rung: Rung, args: &[OsString]) -> Result<()> {
    if rung != Rung::Pure {
        if !shell::is_root() {
            bail!(
                "these tests create network namespaces, cgroups and eBPF programs, which needs root. \
                 Run `sudo -E env PATH=\"$PATH\" cargo xtask test`, or `cargo xtask test pure` for those that do not"
            );
        }
        setup::run(setup::Talk::Problems)?;
    }
    let start = Instant::now();
    shell::say("$ cargo test: compiling first, which takes minutes the first time");
    let mut tally = Tally::default();
    let mut status = ExitStatus::default();
    for mut pass in passes(rung, args) {
        status = tests(&mut pass, &mut tally)?;
        if !status.success() {
            break;
        }
    }
    // Whoever names tests wants those alone.
    let fuzzes = rung != Rung::Lab && args.is_empty();
    let fuzzed = if status.success() && fuzzes { fuzz(&mut tally) } else { Ok(()) };
    print(&tally.summary(status.success() && fuzzed.is_ok(), start.elapsed().as_secs_f32()));
    if !status.success() {
        bail!("the tests failed ({status}); the first failure is above");
    }
    fuzzed
}

/// Has the fuzzer look for a while: a test for each of its targets.
fn fuzz(tally: &mut Tally) -> Result<()> {
    for target in fuzz::Target::value_variants() {
        let result = fuzz::run(Some(*target), fuzz::BRIEFLY);
        let count = if result.is_ok() { &mut tally.passed } else { &mut tally.failed };
        *count += 1;
        result?;
    }
    Ok(())
}

/// Everything once, and what packets take part in on the other data plane, too; all of it if tests are named.
fn passes(rung: Rung, args: &[OsString]) -> Vec<Command> {
    let each = |flag: &'static str| PURE.iter().map(move |package| format!("--{flag}={package}"));
    let pass = || {
        let mut cargo = shell::cargo();
        cargo.arg("test");
        if std::env::var_os("RUST_TEST_THREADS").is_none() && rung != Rung::Pure {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            cargo.env("RUST_TEST_THREADS", processors.max(THREADS).to_string());
        }
        match rung {
            Rung::All => cargo.arg("--workspace"),
            Rung::Pure => cargo.args(each("package")),
            Rung::Lab => cargo.arg("--workspace").args(each("exclude")),
        };
        cargo
    };
    let (mut first, mut second) = (pass(), pass());
    if rung == Rung::Pure {
        first.arg("--").args(args);
        return vec![first];
    }
    first.env(DATAPLANE, "ebpf");
    // Of the same packages, or cargo would compile them again for other features of what they depend on.
    second.arg("--test=mesh").env(DATAPLANE, "nft");
    for pass in [&mut first, &mut second] {
        pass.arg("--").args(args);
    }
    if args.is_empty() {
        second.args(ANY_PLANE.iter().flat_map(|tests| ["--skip", tests]));
    }
    vec![first, second]
}

/// Runs one `cargo test`, shows what it says, and counts.
fn tests(cargo: &mut Command, tally: &mut Tally) -> Result<ExitStatus> {
    for (name, value) in cargo.get_envs() {
        if let (Some(DATAPLANE), Some(value)) = (name.to_str(), value) {
            shell::headline(&format!("the data plane of the meshes is {}", value.display()));
        }
    }
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what cargo says")?;
            let line = String::from_utf8_lossy(&line);
            tally.add(&line);
            print(&line);
        }
    }
    child.wait().context("cannot wait for cargo")
}

/// A reader that went away (`| head`) must not end the tests.
fn print(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

/// The sum of the `test result:` lines.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Tally {
    /// Takes in `test result: ok. 12 passed; 0 failed; 0 ignored; …`; other lines say nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in counts.split("; ") {
            let Some((count, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(count) = count.parse::<u32>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    fn summary(&self, success: bool, seconds: f32) -> String {
        let Self { passed, failed, ignored } = self;
        let verdict = if success { "all passed" } else { "FAILED" };
        format!("tests: {verdict}: {passed} passed, {failed} failed, {ignored} ignored, in {seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_summed_and_other_lines_are_not() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a_test ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 14, failed: 1, ignored: 1 });
        assert_eq!(tally.summary(false, 3.2), "tests: FAILED: 14 passed, 1 failed, 1 ignored, in 3 s");
    }
}
