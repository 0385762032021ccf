//! `ci`: exactly what continuous integration runs, so that it can be run before a push.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::{Rung, check, generate, shell, test};

pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    step("check", check::run)?;
    step("gen --check", || generate::run(true))?;
    step("test", || test::run(Rung::All, &[]))?;
    shell::headline(&format!("ci: all passed in {:.0?}", start.elapsed()));
    Ok(())
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    shell::headline(&format!("ci: {name}"));
    let start = Instant::now();
    let result = run();
    let verdict = if result.is_ok() { "passed" } else { "FAILED" };
    shell::headline(&format!("ci: {name} {verdict} after {:.1?}", start.elapsed()));
    result.with_context(|| format!("step `{name}`; repeat it alone with: cargo xtask {name}"))
}
