//! **Decision.** When what was given back may be given out again.

use crate::kv::Txn;
use crate::model::{Snapshot, Timestamp};

/// A node that shows no life for so long no longer holds anything up; milliseconds.
pub const RELEASE_PATIENCE: Timestamp = 10 * 60 * 1000;
/// As many as one transaction takes well.
const AT_ONCE: usize = 100;

/// Frees claims whose release every node has applied. Without it a node that lags would still send a VIP to
/// its old service while others send it to the new one.
pub fn janitor(world: &Snapshot, now: Timestamp) -> Txn {
    let mut txn = Txn::default();
    let slowest = world.nodes.keys().map(|id| world.live.get(id).map(|live| live.applied)).min().flatten();
    for (key, held) in &world.claims {
        let Some(released) = held.claim.released else {
            continue;
        };
        let all_know = slowest.is_some_and(|applied| applied >= held.modified);
        if all_know || now.saturating_sub(released) > RELEASE_PATIENCE {
            txn.unchanged(key, held.modified);
            txn.delete(key);
        }
        if txn.ops.len() == AT_ONCE {
            break;
        }
    }
    txn
}
