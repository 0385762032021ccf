//! How soon a task's change is known everywhere.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use mesh_core::model::NodeId;
use mesh_core::plan::Planner;
use mesh_tests::Etcd;

use super::nodes::{Node, commit, put};
use super::report::Spread;
use crate::times::Times;

/// Between two changes: the signs of life that follow one are over then.
const PAUSE: Duration = Duration::from_millis(500);

/// Changes one task after the other.
pub(super) async fn measure(etcd: &Etcd, nodes: &[Node], changes: usize) -> Result<Spread> {
    let store = super::store(etcd)?;
    let world = nodes.first().context("no node")?.world.borrow().clone();
    let all = world.tasks.len().max(1);
    let (mut each, mut last, mut plan) = (Vec::new(), Vec::new(), Vec::new());
    let mut planner = Planner::default();
    let planned = world.nodes.keys().next().cloned().unwrap_or_else(|| NodeId::new("none"));
    planner.desired(&world, &planned, &Default::default(), 0);
    for number in 0..changes {
        let Some(task) = world.tasks.values().nth(number * 7919 % all) else { continue };
        let mut task = task.as_ref().clone();
        task.weight = task.weight % 100 + 1 + u16::try_from(number % 3)?;
        let began = Instant::now();
        let rev = commit(&store, put(&task)).await?;
        let seen = try_join_all(nodes.iter().map(|node| node.has(rev))).await?;
        let times = seen.into_iter().map(|at| (at - began).as_secs_f64() * 1000.0);
        let before = each.len();
        each.extend(times);
        last.push(each[before..].iter().copied().fold(0.0, f64::max));
        let now = nodes.first().map(|node| node.world.borrow().clone()).context("no node")?;
        let began = Instant::now();
        planner.desired(&now, &planned, &Default::default(), 0);
        plan.push(began.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Spread { a_node_ms: Times::of(each), all_nodes_ms: Times::of(last), plan_ms: Times::of(plan) })
}
