//! **Effect.** Waiting until every node does what it should.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cluster::status;
use crate::{Lab, Node, eventually};

/// How long after the end of all faults every node may take to be as it should be.
const WITHIN: Duration = Duration::from_secs(5);
/// Two rounds over the whole kernel take so long.
const PROOF: Duration = Duration::from_secs(3);

/// An error unless every node comes to be as it should be in time. That it is so is proven by two rounds over its whole
/// kernel that find nothing to change; they may end later.
pub(super) fn converges(lab: &Lab, since: Instant) -> Result<Duration> {
    let left = WITHIN.saturating_sub(since.elapsed());
    let settled = eventually(left, "all nodes are as they should be", || all_well(lab));
    settled?;
    let took = since.elapsed();
    let steady = |node: &Node| {
        let before = changed(&status(node)?)?;
        eventually(PROOF, "a round over the whole kernel changes nothing", || {
            let now = changed(&status(node)?)?;
            ensure!(now.changed == before.changed, "{} was not as it said: {before:?}, {now:?}", node.name());
            ensure!(now.rounds >= before.rounds + 2, "{} makes no rounds: {before:?}, {now:?}", node.name());
            Ok(())
        })
    };
    each(lab, steady)?;
    Ok(took)
}

/// An error unless every node is well, has done all that it knows of, and hears all others.
fn all_well(lab: &Lab) -> Result<()> {
    each(lab, |node| {
        let said = status(node)?;
        let [applied, wanted] = ["AppliedRevision", "WantedRevision"].map(|revision| said[revision].as_u64());
        let silent = said["Problems"].to_string().contains("node ");
        let well = said["Healthy"] == true && said["Store"]["Connected"] == true && applied >= wanted;
        ensure!(well && !silent, "{}: {}", node.name(), without_counters(said));
        Ok(())
    })
}

/// The same on all nodes at once.
fn each(lab: &Lab, check: impl Fn(&Node) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let check = &check;
        let all: Vec<_> = lab.nodes().iter().map(|node| scope.spawn(move || check(node))).collect();
        all.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

/// What all planes of a node did: the fewest rounds of one, and all changes.
#[derive(Debug)]
struct Done {
    rounds: u64,
    changed: u64,
}

fn changed(status: &Value) -> Result<Done> {
    let planes = status["Planes"].as_object().context("the status has no planes")?;
    let number = |plane: &Value, what: &str| plane[what].as_u64().unwrap_or_default();
    Ok(Done {
        rounds: planes.values().map(|plane| number(plane, "Rounds")).min().unwrap_or_default(),
        changed: planes.values().map(|plane| number(plane, "Changed")).sum(),
    })
}

fn without_counters(mut status: Value) -> Value {
    if let Some(fields) = status.as_object_mut() {
        for field in ["Counters", "Limits", "Nodes"] {
            fields.remove(field);
        }
    }
    status
}
