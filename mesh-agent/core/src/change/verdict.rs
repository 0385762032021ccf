//! **Decision.** When a node is dead for all: what managers see, put together.
//!
//! Each node's sign of life says which others it does not hear, and which of those that are marked it does hear. Of whom
//! it names in neither it knows nothing yet, as after a start: that is no vote. A node is dead when most managers say so
//! and its own sign of life is gone; its record of that start says so then. Where no node is a manager, all that show
//! life count. That serves nodes that do not probe it themselves, and people; whoever hears the node goes on as before.

use std::collections::{BTreeMap, BTreeSet};

use super::Fresh;
use crate::kv::{Rev, Txn};
use crate::model::{Down, NodeId, Snapshot};
use crate::records;

/// Of all nodes, so many may be dead, but one in any case: if more seem to be, something else is wrong.
const ONE_OF: usize = 3;

/// What managers see of the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outage {
    /// Whom most of them do not hear and who shows no life, and who says so.
    pub dead: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// These are so many that nobody is marked.
    pub too_many: bool,
}

/// Who is dead, by what managers see now.
pub fn outage(world: &Snapshot) -> Outage {
    let mut voters: BTreeSet<&NodeId> = world.manager_ids().collect();
    if voters.is_empty() {
        voters = world.live.keys().filter(|id| world.nodes.contains_key(*id)).collect();
    }
    let says = |voter: &NodeId, id: &NodeId| world.live.get(voter).is_some_and(|l| l.silent.contains(id));
    let without_life = world.nodes.values().filter(|node| !world.live.contains_key(&node.id) && !node.left);
    let dead: BTreeMap<_, _> = without_life
        .filter_map(|node| {
            let by: BTreeSet<_> =
                voters.iter().filter(|voter| says(voter, &node.id)).map(|id| (*id).clone()).collect();
            (by.len() * 2 > voters.len()).then(|| (node.id.clone(), by))
        })
        .collect();
    let too_many = dead.len() > (world.nodes.len() / ONE_OF).max(1);
    Outage { dead, too_many }
}

/// Marks who is dead, and takes the mark from who is not. A mark stays while managers come and go: it takes a sign of
/// life, a new start, or that most managers hear the node again.
pub fn verdicts(world: &Snapshot, fresh: Fresh) -> Txn {
    let mut txn = Txn::default();
    for (id, down) in &world.downs {
        let other = world.nodes.get(id).is_none_or(|node| node.epoch != down.epoch || node.left);
        if other || world.live.contains_key(id) || is_heard(world, id) {
            let key = records::down(id);
            txn.unchanged(&key, world.rev_of(&key));
            txn.delete(key);
        }
    }
    let Outage { dead, too_many } = outage(world);
    if too_many {
        return txn;
    }
    for (id, by) in dead {
        let Some(node) = world.nodes.get(&id) else { continue };
        // One of a former start is taken away first.
        if world.downs.contains_key(&id) {
            continue;
        }
        let (mark, record) = (records::down(&id), records::node(&id));
        txn.unchanged(&mark, world.rev_of(&mark));
        txn.unchanged(&record, world.rev_of(&record));
        txn.unchanged(records::live(&id), Rev(0));
        txn.put(mark, records::to_json(&Down { epoch: node.epoch, by, since: fresh.now }));
    }
    txn
}

/// Whether most managers show life and say that they hear a node.
fn is_heard(world: &Snapshot, id: &NodeId) -> bool {
    let hears = |voter: &&NodeId| world.live.get(*voter).is_some_and(|live| live.heard.contains(id));
    let managers = world.manager_ids().count();
    if managers > 0 {
        return world.manager_ids().filter(hears).count() * 2 > managers;
    }
    let voters = world.live.keys().filter(|voter| *voter != id);
    voters.clone().filter(hears).count() * 2 > voters.count()
}
