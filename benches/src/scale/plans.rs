//! How long a plan takes, without an agent around it.

use std::time::Instant;

use anyhow::Result;
use mesh_core::kv::{KvState, Listing};
use mesh_core::liveness::Masks;
use mesh_core::plan::{self, Planner};
use mesh_core::replica::Replica;

use super::changes;
use super::millis;
use super::records::Records;

/// Milliseconds.
pub(super) struct Plans {
    /// From nothing.
    pub(super) anew: Vec<f64>,
    /// After a change of one task.
    pub(super) changed: Vec<f64>,
    /// Until the copy of the records has that change, and a snapshot of it is there.
    pub(super) copied: Vec<f64>,
}

const ANEW: usize = 5;

pub(super) fn measure(records: &Records, count: usize) -> Result<Plans> {
    let mut store = KvState::default();
    for some in records.all().chunks(mesh_core::kv::MAX_OPS) {
        let mut txn = mesh_core::kv::Txn::default();
        some.iter().for_each(|(key, value)| txn.put(key, value));
        if let Ok(batch) = store.prepare(&txn)? {
            store.install(batch);
        }
    }
    let mut replica = Replica::default();
    let kvs = store.range("").cloned().collect();
    replica.resync(Listing { cluster: "bench".to_owned(), rev: store.rev(), kvs }, true)?;
    let Some(node) = replica.world().nodes.keys().next().cloned() else { anyhow::bail!("no node") };
    let mut plans = Plans { anew: Vec::new(), changed: Vec::new(), copied: Vec::new() };
    for _ in 0..ANEW {
        let began = Instant::now();
        let desired = plan::desired(replica.world(), &node, 0);
        plans.anew.push(millis(began.elapsed()));
        drop(desired);
    }
    let mut planner = Planner::default();
    let mut last = planner.desired(replica.world(), &node, &Masks::default(), 0);
    let mut world = replica.world().clone();
    for (_, task, change) in changes::some(records, count) {
        let Ok(batch) = store.prepare(&change.txn(task))? else { continue };
        store.install(batch.clone());
        let began = Instant::now();
        replica.apply(batch);
        world = replica.world().clone();
        let copied = Instant::now();
        last = planner.desired(&world, &node, &Masks::default(), 0);
        plans.changed.push(millis(copied.elapsed()));
        plans.copied.push(millis(copied - began));
    }
    drop((last, world));
    Ok(plans)
}
