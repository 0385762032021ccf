//! **Decision.** When what was given back may be given out again, and what nobody holds any more.

use std::collections::BTreeSet;

use super::task;
use crate::kv::{MAX_OPS, Rev, Txn};
use crate::model::{NodeId, Role, Snapshot};
use crate::records;

/// As many records as one transaction takes together with what belongs to each.
pub(super) const AT_ONCE: usize = 80;

/// Whether a node is the first of those that show a sign of life and may tidy up: it does so where no node keeps the
/// records. Where nodes have roles, that is for managers. When two think so for a moment, their transactions cannot
/// both succeed.
pub fn is_first(world: &Snapshot, node: &NodeId) -> bool {
    let manager = |id: &NodeId| world.identities.get(id).is_some_and(|who| who.role == Role::Manager);
    world.live.keys().find(|id| world.identities.is_empty() || manager(id)) == Some(node)
}

/// One round of tidying: frees claims whose release every node has applied, and takes away what removed nodes
/// and networks left behind. Without the wait a node that lags would still send a VIP to its old service while
/// others send it to the new one. `overdue` are claims that were released so long ago, by the caller's own
/// clock, that a node which shows no life no longer holds them up.
pub fn janitor(world: &Snapshot, overdue: &BTreeSet<String>) -> Txn {
    let mut txn = Txn::default();
    let slowest = world.nodes.keys().map(|id| world.live.get(id).map(|live| live.applied)).min().flatten();
    for (key, held) in world.claims.iter().filter(|(_, held)| held.claim.released.is_some()) {
        let all_know = slowest.is_some_and(|applied| applied >= held.modified);
        if all_know || overdue.contains(&**key) {
            txn.unchanged(&**key, held.modified);
            txn.delete(&**key);
        }
        if txn.ops.len() >= AT_ONCE {
            return txn;
        }
    }
    orphans(world, &mut txn);
    txn
}

/// By keys, not by records: what cannot be read is not gone.
fn orphans(world: &Snapshot, txn: &mut Txn) {
    let gone = |key: &str| world.rev_of(key) == Rev(0);
    let mut conditions = BTreeSet::new();
    for ((network, block), node) in &world.blocks {
        let (network_key, node_key) = (records::network(network), records::node(node));
        if txn.ops.len() + 8 > MAX_OPS {
            break;
        }
        if gone(&network_key) || gone(&node_key) {
            let key = records::block_claim(network, *block);
            txn.unchanged(&key, world.rev_of(&key));
            txn.delete(key);
        }
    }
    let on_gone = world.tasks.by_node().iter().filter(|(node, _)| gone(&records::node(node)));
    for task in on_gone.flat_map(|(_, tasks)| tasks.iter()) {
        if txn.ops.len() + 8 > MAX_OPS {
            break;
        }
        // A node that comes back keeps its tasks.
        conditions.insert(records::node(&task.node));
        task::delete(task, txn);
    }
    for task in world.stops.keys().filter(|task| gone(&records::task(task))) {
        if txn.ops.len() + 8 > MAX_OPS {
            break;
        }
        txn.delete(records::stop(task));
    }
    for task in world.task_specs.keys().filter(|task| gone(&records::task(task))) {
        if txn.ops.len() + 8 > MAX_OPS {
            break;
        }
        txn.delete(records::task_spec(task));
    }
    for key in conditions {
        txn.unchanged(key, Rev(0));
    }
}
