//! **Decision.** Nodes that do not answer get no new flows, where others serve; nodes that leave get none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Backend, Balance, Problem};
use crate::liveness::Verdict;
use crate::model::{NodeId, Snapshot};

/// Takes their tasks out of all pools. A pool that would be empty stays as it is: whom we do not hear may serve all
/// the same, and nobody certainly does not. Who says itself that it leaves
/// serves nobody, nor does who was started anew. Datagrams do not wait for a node that is dead either.
pub(super) fn apply(
    world: &Snapshot,
    masks: &BTreeMap<NodeId, Verdict>,
    balance: &mut Balance,
    problems: &mut Vec<Problem>,
) {
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
    if masks.is_empty() {
        return;
    }
    let dead = masks.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Dead | Verdict::AgreedDown));
    let dead: BTreeSet<_> = dead.filter_map(|(id, _)| Some(world.nodes.get(id)?.address)).collect();
    for site in balance.sites.values_mut().filter(|site| site.peer.is_some_and(|peer| dead.contains(&peer))) {
        Arc::make_mut(site).silent = true;
    }
    for pool in balance.frontends.values_mut() {
        let leaves = |backend: &Backend| {
            matches!(masks.get(&backend.node), Some(Verdict::Leaving | Verdict::Rebooted))
        };
        if pool.backends.iter().any(leaves) {
            Arc::make_mut(pool).backends.retain(|backend| !leaves(backend));
        }
        let masked = pool.backends.iter().filter(|backend| masks.contains_key(&backend.node)).count();
        if masked > 0 && masked < pool.backends.len() {
            Arc::make_mut(pool).backends.retain(|backend| !masks.contains_key(&backend.node));
        }
    }
}
