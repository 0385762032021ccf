//! **Decision.** Nodes that do not answer get no new flows, where others serve; nodes that leave get none.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Pool, Problem};
use crate::liveness::{Masks, Verdict};
use crate::model::{NodeId, Snapshot};

/// What people are told of it.
pub(super) fn problems(world: &Snapshot, masks: &Masks) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (id, verdict) in &masks.nodes {
        let Some(node) = world.nodes.get(id) else { continue };
        let why = match verdict {
            // That is no problem.
            Verdict::Leaving => continue,
            Verdict::AgreedDown => "is dead, as managers agree",
            Verdict::Rebooted => "was started anew, and its agent has not said so yet",
            Verdict::PathDown => "answers other nodes and not this one: look at the network between them",
            Verdict::TunnelDown => {
                "answers, but not through the tunnel: look for what drops VXLAN between them"
            }
            _ => "does not answer",
        };
        let message = format!("{why}; its tasks get no new flows by this node, where others serve");
        problems.push(Problem { about: format!("node {}", node.name), message });
    }
    for (id, notice) in &masks.tasks {
        let Some(task) = world.tasks.get(id) else { continue };
        let message = format!(
            "{}, as its node says: it gets no new flows; the store has yet to write it down",
            notice.words()
        );
        problems.push(Problem { about: format!("task {}", world.task_name(task)), message });
    }
    problems
}

/// Whether datagrams do not wait for a node's tasks either.
pub(super) fn is_dead(masks: &BTreeMap<NodeId, Verdict>, node: &NodeId) -> bool {
    matches!(masks.get(node), Some(Verdict::Dead | Verdict::AgreedDown))
}

/// Takes their tasks out of pools.
pub(super) fn apply<'a>(masks: &BTreeMap<NodeId, Verdict>, pools: impl Iterator<Item = &'a mut Arc<Pool>>) {
    if masks.is_empty() {
        return;
    }
    for pool in pools {
        // What others share stays as it is.
        if pool.backends.iter().any(|backend| masks.contains_key(&backend.node)) {
            let mut left = pool.backends.to_vec();
            leave_out(masks, &mut left, |backend| &backend.node);
            if left.len() < pool.backends.len() {
                Arc::make_mut(pool).backends = left.into();
            }
        }
    }
}

/// Leaves out what is on nodes that do not answer. Where nothing would be left all of that stays: whom we do not hear may
/// serve all the same, and nobody certainly does not. Who says itself that it leaves serves nobody, nor does who was
/// started anew.
pub(crate) fn leave_out<T>(
    masks: &BTreeMap<NodeId, Verdict>,
    all: &mut Vec<T>,
    node: impl Fn(&T) -> &NodeId,
) {
    all.retain(|one| !matches!(masks.get(node(one)), Some(Verdict::Leaving | Verdict::Rebooted)));
    if all.iter().any(|one| !masks.contains_key(node(one))) {
        all.retain(|one| !masks.contains_key(node(one)));
    }
}
