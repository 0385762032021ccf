//! **Decision.** Why a node gets no new flows: what is seen, what it says itself, and what managers agree on.

use std::collections::BTreeMap;

use super::{Detector, Echoes, Hints, Millis, Verdict};
use crate::model::{NodeId, Snapshot};

/// What masks others, all in all; of several reasons the one that says most.
///
/// What a node sees itself comes before what managers agree on: flows go from here to there, so whoever is heard here
/// is not dead for us.
pub fn masks(
    world: &Snapshot,
    underlay: &Detector,
    tunnels: &Detector,
    hints: &Hints,
    echoes: &Echoes,
    now: Millis,
) -> BTreeMap<NodeId, Verdict> {
    let mut all: BTreeMap<_, _> =
        tunnels.masks().keys().map(|id| (id.clone(), Verdict::TunnelDown)).collect();
    all.extend(underlay.masks().clone());
    for id in world.down_nodes() {
        let heard = matches!(underlay.verdict(id), Some(Verdict::Up | Verdict::Suspect));
        if !heard && !underlay.is_alone() {
            all.entry(id.clone()).or_insert(Verdict::AgreedDown);
        }
    }
    // Where the record says so, too, it is the record that counts.
    let said = hints.leaving().filter(|id| world.nodes.contains_key(*id) && !world.is_withdrawn(id));
    all.extend(said.map(|id| (id.clone(), Verdict::Leaving)));
    all.extend(echoes.rebooted(world, now).map(|id| (id.clone(), Verdict::Rebooted)));
    all
}
