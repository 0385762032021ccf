use proptest::prelude::*;

use super::*;

fn node(number: u64) -> NodeId {
    NodeId::new(format!("n{number}"))
}

fn peer(number: u64) -> String {
    format!("https://192.0.2.{number}:7302")
}

/// Members by number: 'v' has a vote, 'd' has one and is dead, 'l' follows, 'a' was added and never started.
fn seen(members: &str, wanted: &[u64]) -> Seen {
    let member = |(place, kind): (usize, char)| {
        let id = place as u64 + 1;
        Member {
            id,
            node: (kind != 'a').then(|| node(id)),
            peer: peer(id),
            learner: matches!(kind, 'l' | 'a'),
            answers: matches!(kind, 'v' | 'l'),
        }
    };
    let members = members.chars().enumerate().filter(|(_, kind)| *kind != '-').map(member).collect();
    Seen { members, wanted: wanted.iter().map(|number| (node(*number), Some(peer(*number)))).collect() }
}

fn add(number: u64) -> Step {
    Step::Add { node: node(number), peer: peer(number) }
}

#[test]
fn members_come_one_by_one() {
    assert_eq!(next(&seen("v", &[1])), Step::Done);
    assert_eq!(next(&seen("v", &[1, 2, 3])), add(2));
    assert!(matches!(next(&seen("va", &[1, 2, 3])), Step::Wait { .. }));
    assert_eq!(next(&seen("vl", &[1, 2, 3])), Step::Promote { id: 2 });
    assert_eq!(next(&seen("vv", &[1, 2, 3])), add(3));
    assert_eq!(next(&seen("vvv", &[1, 2, 3])), Step::Done);
}

#[test]
fn members_go_where_the_others_suffice() {
    assert_eq!(next(&seen("vvv", &[1, 3])), Step::Remove { id: 2 });
    assert_eq!(next(&seen("vdv", &[1, 3])), Step::Remove { id: 2 });
    assert_eq!(next(&seen("vdv", &[1, 3, 4])), Step::Remove { id: 2 });
    // Its successor first.
    assert_eq!(next(&seen("vvv", &[1, 3, 4])), add(4));
    assert!(matches!(next(&seen("vvd", &[1, 3])), Step::Wait { .. }));
    assert!(matches!(next(&seen("v", &[])), Step::Wait { .. }));
    // One that never came, or that is no longer wanted, has no vote to lose.
    assert_eq!(next(&seen("va", &[1])), Step::Remove { id: 2 });
    assert_eq!(next(&seen("vl", &[1])), Step::Remove { id: 2 });
    assert!(matches!(next(&seen("vdd", &[1])), Step::Wait { .. }));
}

#[test]
fn refusals_that_pass_are_known() {
    assert!(is_passing("etcdserver: unhealthy cluster"));
    assert!(is_passing("etcdserver: can only promote a learner member which is in sync with leader"));
    assert!(!is_passing("etcdserver: Peer URLs already exists"));
    assert!(pause(0) < pause(3) && pause(u32::MAX) == Duration::from_secs(5));
}

#[test]
fn what_is_not_as_it_should_be_is_told() {
    for fine in [(0, 0), (1, 1), (3, 3), (5, 5)] {
        assert_eq!(warning(fine.0, fine.1), None);
    }
    assert!(warning(2, 2).unwrap().contains("promote a third"));
    assert!(warning(3, 2).unwrap().contains("0 more may fail"));
    assert!(warning(3, 1).unwrap().contains("mesh cluster recover"));
}

proptest! {
    /// Whatever is seen and wanted: no step of ours takes the majority away, and with all alive the members become
    /// those that are wanted.
    #[test]
    fn the_majority_stays(kinds in "[vdla-]{1,6}", wanted in prop::collection::btree_set(1_u64..=6, 0..=5)) {
        let wanted: Vec<_> = wanted.into_iter().collect();
        let mut now = seen(&kinds, &wanted);
        for _ in 0..40 {
            let (voters, answering) = now.votes();
            match next(&now) {
                Step::Remove { id } => now.members.retain(|member| member.id != id),
                Step::Promote { id } => {
                    now.members.iter_mut().filter(|m| m.id == id).for_each(|m| m.learner = false);
                }
                Step::Add { node, peer } => {
                    prop_assert!(now.members.iter().all(|member| !member.learner), "one at a time");
                    let id = now.wanted.keys().position(|n| *n == node).unwrap() as u64 + 100;
                    now.members.push(Member { id, node: Some(node), peer, learner: true, answers: true });
                }
                Step::Wait { .. } | Step::Done => break,
            }
            prop_assert!(answering >= majority(voters));
            let (voters, answering) = now.votes();
            prop_assert!(voters >= 1 && answering >= majority(voters), "{now:?}");
        }
        let alive = kinds.chars().all(|kind| kind == 'v' || kind == 'l') && kinds.contains('v');
        if alive && !wanted.is_empty() && wanted.len() + kinds.len() <= 5 {
            prop_assert_eq!(next(&now), Step::Done);
        }
    }
}
