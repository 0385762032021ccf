//! **Decision.** When every node is asked to compare its kernel with the plan.

use std::time::Duration;

use super::{Change, Fresh, Refusal};
use crate::kv::Txn;
use crate::model::{Live, NodeId, Snapshot, Verification};
use crate::records::{self, VERIFICATION};

/// For how long a question that nobody took back is in the way of the next: who asked may have died.
pub const VERIFICATION_LIFE: Duration = Duration::from_secs(60);

/// Asks all nodes. The result is the question's id, which answers name.
pub fn begin_verification(world: &Snapshot, repair: bool, fresh: Fresh) -> Result<Change<String>, Refusal> {
    let id = NodeId::from_random(fresh.id).to_string();
    let life = VERIFICATION_LIFE.as_millis() as u64;
    if let Some(other) = &world.verification
        && other.id != id
        && fresh.now.abs_diff(other.since) < life
    {
        return Err(Refusal::Conflict(
            "the nodes are being verified already: try again in a minute".to_owned(),
        ));
    }
    let asked = Verification { id: id.clone(), repair, since: fresh.now };
    let mut txn = Txn::default();
    txn.unchanged(VERIFICATION, world.rev_of(VERIFICATION));
    txn.put(VERIFICATION, records::to_json(&asked));
    Ok(Change { txn, result: id })
}

/// Nodes that have not answered, and show that they live.
pub fn awaited<'a>(world: &'a Snapshot, id: &'a str) -> impl Iterator<Item = &'a NodeId> {
    let nodes = world.nodes.keys().filter_map(|node| Some((node, world.live.get(node)?)));
    let silent = move |live: &Live| live.verified.as_ref().is_none_or(|found| found.id != id);
    nodes.filter(move |(_, live)| silent(live)).map(|(node, _)| node)
}

/// Takes a question back.
pub fn end_verification(world: &Snapshot, id: &str) -> Change<()> {
    let mut txn = Txn::default();
    if world.verification.as_ref().is_some_and(|asked| asked.id == id) {
        txn.unchanged(VERIFICATION, world.rev_of(VERIFICATION));
        txn.delete(VERIFICATION);
    }
    Change { txn, result: () }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Node, Verified};

    const NOW: Fresh = Fresh { id: [1; 16], now: 100_000 };

    fn node(name: &str) -> Node {
        let json = serde_json::json!({
            "id": name, "name": name, "address": "192.0.2.1", "vxlan_port": 4789, "epoch": 1, "boot": "", "uplink_mtu": 1500,
            "listeners": [], "routes": [], "version": "", "started": 0,
        });
        serde_json::from_value(json).unwrap()
    }

    fn asked(world: &mut Snapshot, id: &str, since: u64) {
        let asked = Verification { id: id.to_owned(), repair: false, since };
        world.verification = Some(asked);
    }

    #[test]
    fn one_question_at_a_time_but_none_is_in_the_way_for_long() {
        let mut world = Snapshot::default();
        let id = begin_verification(&world, true, NOW).unwrap().result;
        asked(&mut world, "another", NOW.now - 1000);
        assert!(matches!(begin_verification(&world, true, NOW), Err(Refusal::Conflict(_))));
        asked(&mut world, "another", NOW.now - 61_000);
        assert_eq!(begin_verification(&world, true, NOW).unwrap().result, id);
        // A clock that was wrong is in nobody's way for longer.
        asked(&mut world, "another", NOW.now + 61_000);
        assert!(begin_verification(&world, true, NOW).is_ok());
        // Our own, of which nobody told what became of it.
        asked(&mut world, &id, NOW.now);
        assert!(begin_verification(&world, true, NOW).is_ok());
    }

    #[test]
    fn only_the_own_question_is_taken_back() {
        let mut world = Snapshot::default();
        asked(&mut world, "ours", 0);
        assert!(end_verification(&world, "another").txn.ops.is_empty());
        assert_eq!(end_verification(&world, "ours").txn.ops.len(), 1);
    }

    #[test]
    fn who_shows_no_sign_of_life_is_not_waited_for() {
        let mut world = Snapshot::default();
        for name in ["a", "b", "c"] {
            world.nodes.insert(NodeId::new(name), Arc::new(node(name)));
        }
        let live = |id: Option<&str>| Live {
            verified: id.map(|id| Verified::new(id, [].into(), 0)),
            ..Live::default()
        };
        world.live.insert(NodeId::new("a"), live(Some("old")));
        world.live.insert(NodeId::new("b"), live(Some("new")));
        assert_eq!(awaited(&world, "new").collect::<Vec<_>>(), [&NodeId::new("a")]);
    }

    #[test]
    fn a_long_answer_is_cut_and_says_how_long_it_was() {
        let many = (0..80).map(|n| (format!("{n:02}"), "missing".to_owned())).collect();
        let answer = Verified::new("x", many, 3);
        assert_eq!((answer.count, answer.left, answer.differences.len()), (80, 3, Verified::MOST));
        assert!(answer.differences.contains_key("00") && !answer.differences.contains_key("79"));
    }
}
