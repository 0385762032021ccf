//! **Decision.** Nodes become managers, which keep the records, and workers again.

use super::identity::set_role;
use super::{Change, Refusal};
use crate::members::MAX_MANAGERS;
use crate::model::{Node, Role, Snapshot};
use crate::records;

/// A node is to keep the records, too: from its next certificate on, which it gets at once.
pub fn promote(world: &Snapshot, reference: &str) -> Result<Change<Node>, Refusal> {
    let node = find(world, reference)?;
    if world.is_manager(&node.id) {
        return Err(Refusal::Conflict(format!("Node {} is already a manager.", node.name)));
    }
    if world.manager_ids().count() >= MAX_MANAGERS {
        return Err(Refusal::Conflict(format!(
            "there are {MAX_MANAGERS} managers already, and more make changes slower and nothing safer: demote one first"
        )));
    }
    let Change { txn, .. } = set_role(world, &node.id, Role::Manager)?;
    Ok(Change { txn, result: node.clone() })
}

/// A node is to keep the records no longer.
pub fn demote(world: &Snapshot, reference: &str) -> Result<Change<Node>, Refusal> {
    let node = find(world, reference)?;
    if !world.is_manager(&node.id) {
        return Err(Refusal::Conflict(format!("Node {} is already a worker.", node.name)));
    }
    if world.manager_ids().count() == 1 {
        return Err(Refusal::Conflict(format!(
            "attempting to demote the last manager of the cluster: promote another node first ({} keeps the only copy \
             of the records)",
            node.name
        )));
    }
    let Change { mut txn, .. } = set_role(world, &node.id, Role::Worker)?;
    // Of two that go at once, one has to see the other go.
    for manager in world.manager_ids().filter(|manager| **manager != node.id) {
        let key = records::identity(manager);
        txn.unchanged(&key, world.rev_of(&key));
    }
    txn.delete(records::signing_request(&node.id));
    txn.delete(records::certificate(&node.id));
    Ok(Change { txn, result: node.clone() })
}

fn find<'a>(world: &'a Snapshot, reference: &str) -> Result<&'a Node, Refusal> {
    if world.manager_ids().next().is_none() {
        return Err(Refusal::Conflict(
            "this mesh has no managers: its records are not kept by a cluster (see 'mesh cluster init')"
                .to_owned(),
        ));
    }
    Ok(world.node(reference).ok_or_else(|| Refusal::not_found("node", reference))?)
}
