//! `fuzz`: has libFuzzer look for packets that the code of the kernel's half, or the name server, mistakes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell;

/// What is looked at. Each is a program in mesh-ebpf/fuzz, and has a directory of inputs to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// How frames are read and answered
    Frame,
    /// ICMP errors about packets of flows
    Errors,
    /// Packets in parts
    Fragments,
    /// Histories of flows, tasks and full tables
    Flows,
    /// Questions to the name server, and what others answer it
    Dns,
}

/// The fuzzed programs are a workspace of their own.
const MANIFEST: &str = "--manifest-path=mesh-ebpf/fuzz/Cargo.toml";

/// How long continuous integration looks for each.
pub(crate) const BRIEFLY: u32 = 10;

/// How rustc leaves marks that libFuzzer follows, and checks memory and arithmetic.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// Looks for so many seconds, for one or each in turn.
pub(crate) fn run(only: Option<Target>, seconds: u32) -> Result<()> {
    let programs = build()?;
    let all = Target::value_variants().iter().filter(|target| only.is_none_or(|only| only == **target));
    all.copied().try_for_each(|target| look(target, &programs, seconds))
}

/// What can be said of the code without running it. No other workspace's cargo looks at it.
pub(crate) fn check() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", MANIFEST, "--check"]))?;
    shell::run(cargo("clippy", &host()?).args(["--all-targets", "--", "-D", "warnings"]))
}

/// Builds all, and says where they are.
fn build() -> Result<PathBuf> {
    let host = host()?;
    shell::run(&mut cargo("build", &host))?;
    Ok(dir().join(host).join("release"))
}

/// The machine's own target.
fn host() -> Result<String> {
    let said = shell::output("rustc", &["--print", "host-tuple"]);
    Ok(said.context("rustc does not say for what it compiles")?.trim().to_owned())
}

/// One command for them all, or libFuzzer would be compiled again for each.
fn cargo(verb: &str, host: &str) -> Command {
    let mut cargo = shell::cargo();
    cargo.args([verb, "--release", "--locked", MANIFEST]).arg("--target-dir").arg(dir());
    // With a target of their own, build scripts have other flags.
    cargo.arg(format!("--target={host}"));
    // Sanitizers are in every toolchain, and in none that is stable are they offered.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    cargo
}

fn look(target: Target, programs: &Path, seconds: u32) -> Result<()> {
    let name = target.name();
    // What was found to lead further is kept, and is where the next one begins.
    let (corpus, found) = (dir().join("corpus").join(&name), dir().join("found").join(&name));
    for dir in [&corpus, &found] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let program = programs.join(&name);
    let mut fuzz = shell::command(&program);
    fuzz.arg(&corpus).arg(shell::root().join("mesh-ebpf/fuzz/seeds").join(&name));
    fuzz.arg(format!("-artifact_prefix={}/", found.display())).arg(format!("-max_total_time={seconds}"));
    fuzz.args(["-timeout=60", "-detect_leaks=0", "-verbosity=0", "-print_final_stats=1"]);
    shell::run(&mut fuzz).with_context(|| {
        let (program, found) = (program.display(), found.display());
        format!("`{name}` fails; the input is in {found}; repeat it alone with: {program} FILE")
    })
}

/// Apart from all else, for it is built otherwise.
fn dir() -> PathBuf {
    shell::target_dir().join("fuzz")
}

impl Target {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}
