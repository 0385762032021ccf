//! Each planned change once, under load. Long runs: `cargo xtask lossless`.

use anyhow::{Result, ensure};
use mesh_tests::{
    built_mesh,
    lossless::{Options, run},
};

#[test]
fn no_planned_change_loses_a_request() -> Result<()> {
    let report = run(&built_mesh()?, Options { requests: 0, rate: 100 })?;
    ensure!(report.failed == 0 && report.requests > 1000, "{report}");
    Ok(())
}
