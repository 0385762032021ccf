//! **Decision.** Nodes become managers, which keep the records, and workers again.

use super::{Change, Refusal};
use crate::kv::Txn;
use crate::members::MAX_MANAGERS;
use crate::model::{Node, Snapshot};
use crate::records;

/// A node is to keep the records, too.
pub fn promote(world: &Snapshot, reference: &str) -> Result<Change<Node>, Refusal> {
    let node = find(world, reference)?;
    if world.managers.contains(&node.id) {
        return Err(Refusal::Conflict(format!("Node {} is already a manager.", node.name)));
    }
    if world.managers.len() >= MAX_MANAGERS {
        return Err(Refusal::Conflict(format!(
            "there are {MAX_MANAGERS} managers already, and more make changes slower and nothing safer: demote one first"
        )));
    }
    let key = records::manager(&node.id);
    let mut txn = Txn::default();
    txn.unchanged(records::node(&node.id), world.rev_of(&records::node(&node.id)));
    txn.unchanged(&key, world.rev_of(&key));
    txn.put(key, "{}");
    Ok(Change { txn, result: node.clone() })
}

/// A node is to keep the records no longer.
pub fn demote(world: &Snapshot, reference: &str) -> Result<Change<Node>, Refusal> {
    let node = find(world, reference)?;
    let key = records::manager(&node.id);
    if !world.managers.contains(&node.id) {
        return Err(Refusal::Conflict(format!("Node {} is already a worker.", node.name)));
    }
    if world.managers.len() == 1 {
        return Err(Refusal::Conflict(format!(
            "attempting to demote the last manager of the cluster: promote another node first ({} keeps the only copy \
             of the records)",
            node.name
        )));
    }
    let mut txn = Txn::default();
    // Of two that go at once, one has to see the other go.
    for manager in &world.managers {
        let key = records::manager(manager);
        txn.unchanged(&key, world.rev_of(&key));
    }
    txn.delete(key);
    txn.delete(records::signing_request(&node.id));
    txn.delete(records::certificate(&node.id));
    Ok(Change { txn, result: node.clone() })
}

fn find<'a>(world: &'a Snapshot, reference: &str) -> Result<&'a Node, Refusal> {
    if world.managers.is_empty() {
        return Err(Refusal::Conflict(
            "this mesh has no managers: its records are not kept by a cluster (see 'mesh cluster init')".to_owned(),
        ));
    }
    Ok(world.node(reference).ok_or_else(|| Refusal::not_found("node", reference))?)
}
