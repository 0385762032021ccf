//! **Decision.** Nodes that do not answer get no new flows, where others serve; nodes that leave get none.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Backend, Pool, Problem};
use crate::liveness::Verdict;
use crate::model::{NodeId, Snapshot};

/// What people are told of it.
pub(super) fn problems(world: &Snapshot, masks: &BTreeMap<NodeId, Verdict>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (id, verdict) in masks {
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
    problems
}

/// Whether datagrams do not wait for a node's tasks either.
pub(super) fn is_dead(masks: &BTreeMap<NodeId, Verdict>, node: &NodeId) -> bool {
    matches!(masks.get(node), Some(Verdict::Dead | Verdict::AgreedDown))
}

/// Takes their tasks out of pools. A pool that would be empty stays as it is: whom we do not hear may serve all
/// the same, and nobody certainly does not. Who says itself that it leaves
/// serves nobody, nor does who was started anew.
pub(super) fn apply<'a>(masks: &BTreeMap<NodeId, Verdict>, pools: impl Iterator<Item = &'a mut Arc<Pool>>) {
    if masks.is_empty() {
        return;
    }
    for pool in pools {
        let leaves = |backend: &Backend| {
            matches!(masks.get(&backend.node), Some(Verdict::Leaving | Verdict::Rebooted))
        };
        if pool.backends.iter().any(leaves) {
            keep(pool, |backend| !leaves(backend));
        }
        let masked = pool.backends.iter().filter(|backend| masks.contains_key(&backend.node)).count();
        if masked > 0 && masked < pool.backends.len() {
            keep(pool, |backend| !masks.contains_key(&backend.node));
        }
    }
}

fn keep(pool: &mut Arc<Pool>, stays: impl Fn(&Backend) -> bool) {
    let backends = pool.backends.iter().filter(|backend| stays(backend)).cloned().collect();
    Arc::make_mut(pool).backends = backends;
}
