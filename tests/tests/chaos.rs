//! A short run of chaos; and that its oracle finds a mesh that breaks its promises. Long runs: `cargo xtask chaos`.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use mesh_tests::{
    built_mesh,
    chaos::{NodeFault, Options, Round, StoreFault, run},
};

/// One after the other: each has five nodes.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn promises_are_kept_under_faults() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let report = run(&built_mesh()?, &Options::new(SEED, Duration::from_secs(24)))?;
    ensure!(report.is_clean() && report.requests > 500 && report.faults > 2, "{report}");
    Ok(())
}

/// Its rounds: an agent is killed; a node is unplugged; two nodes are cut off from three while the store's leader is killed.
/// Tasks, ports and services come and go.
const SEED: u64 = 39_209;

/// The same where nodes keep the store themselves: the leader's supervisor and all that is Mesh's on its node are killed, then
/// the next leader's node is unplugged.
#[test]
fn promises_are_kept_by_managers() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |node, store| Round { before: Vec::new(), node: Some(node), store, meanwhile: Vec::new() };
    let rounds = vec![
        of(NodeFault::KillLeader(500), Some((0, StoreFault::KillSupervisor(1)))),
        of(NodeFault::UnplugLeader(4_000), None),
    ];
    let options = Options { rounds: Some(rounds), managed: true, ..Options::new(0, Duration::ZERO) };
    let report = run(&built_mesh()?, &options)?;
    ensure!(report.is_clean() && report.requests > 500 && report.faults == 3, "{report}");
    Ok(())
}

/// Where kernels answer no probe, nobody finds out that a node is dead, and new flows go on to it.
#[test]
fn a_mesh_that_does_not_see_the_dead_is_found_out() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let unplug = Round {
        before: Vec::new(),
        node: Some(NodeFault::Unplug(4, 6_000)),
        store: None,
        meanwhile: Vec::new(),
    };
    // Programs that answer probes cannot be told not to.
    let dataplane = Some("nft".to_owned());
    let options =
        Options { rounds: Some(vec![unplug]), deaf: true, dataplane, ..Options::new(0, Duration::ZERO) };
    let report = run(&built_mesh()?, &options)?;
    let found = report.violations.iter().any(|violation| violation.contains("was not answered"));
    ensure!(report.failed_other > 0 && found, "the oracle saw nothing: {report}");
    Ok(())
}
