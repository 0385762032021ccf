//! **Decision.** Which nodes keep the records: what to do next, so that the members of etcd become those that are
//! wanted. One step at a time, each from what is seen, so that any of the managers may take it, or several at once.
//!
//! A node comes in as a learner, which has no vote, and gets one when it has caught up. Nothing that is done here takes
//! the majority away: what would is left until it would not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::NodeId;

/// How many managers a mesh may have. More make every change slower and nothing safer.
pub const MAX_MANAGERS: usize = 5;

/// A member of etcd, as its list of members has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// etcd's number for it.
    pub id: u64,
    /// Whose it is; `None`: it was added and has never started.
    pub node: Option<NodeId>,
    /// Where other members reach it.
    pub peer: String,
    /// It follows and has no vote.
    pub learner: bool,
    /// It answers.
    pub answers: bool,
}

/// What there is to decide from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The members.
    pub members: Vec<Member>,
    /// The nodes that are to be members, and where others will reach them; `None`: it has not said so yet.
    pub wanted: BTreeMap<NodeId, Option<String>>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Let a node in, as a learner.
    Add {
        /// Which.
        node: NodeId,
        /// Where others reach it.
        peer: String,
    },
    /// Give a learner a vote. etcd refuses that until it has caught up.
    Promote {
        /// etcd's number for it.
        id: u64,
    },
    /// Let a member go.
    Remove {
        /// etcd's number for it.
        id: u64,
    },
    /// Nothing can be done yet.
    Wait {
        /// For what, in words.
        why: String,
    },
    /// The members are those that are wanted.
    Done,
}

impl Seen {
    fn of(&self, member: &Member) -> Option<NodeId> {
        let named = member.node.clone();
        // One that has never started has no name yet; where it is reached says whose it is.
        named.or_else(|| {
            let found = self.wanted.iter().find(|(_, peer)| peer.as_deref() == Some(member.peer.as_str()));
            found.map(|(node, _)| node.clone())
        })
    }

    fn is_wanted(&self, member: &Member) -> bool {
        self.of(member).is_some_and(|node| self.wanted.contains_key(&node))
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.learner)
    }

    /// How many have a vote, and how many of these answer.
    pub fn votes(&self) -> (usize, usize) {
        (self.voters().count(), self.voters().filter(|member| member.answers).count())
    }
}

/// How many members must agree to a change.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// What to do next.
pub fn next(seen: &Seen) -> Step {
    let (voters, answering) = seen.votes();
    if answering < majority(voters) {
        return Step::Wait { why: format!("{answering} of {voters} managers answer, which is no majority") };
    }
    if let Some(learner) = seen.members.iter().find(|member| member.learner) {
        return match (seen.is_wanted(learner), learner.node.is_some()) {
            (false, _) => Step::Remove { id: learner.id },
            (true, true) => Step::Promote { id: learner.id },
            (true, false) => Step::Wait { why: "a new manager has not started yet".to_owned() },
        };
    }
    // Whoever is gone first: a dead member counts against the majority, and a new one beside it counts more.
    if let Some(dead) = seen.voters().find(|member| !member.answers && !seen.is_wanted(member)) {
        return Step::Remove { id: dead.id };
    }
    let there: BTreeSet<_> = seen.members.iter().filter_map(|member| seen.of(member)).collect();
    let mut missing = seen.wanted.iter().filter(|(node, _)| !there.contains(*node)).peekable();
    let any_missing = missing.peek().is_some();
    if voters < MAX_MANAGERS
        && let Some((node, Some(peer))) = missing.find(|(_, peer)| peer.is_some())
    {
        // While it catches up it has no vote; but etcd gives no vote to a member too many.
        return Step::Add { node: node.clone(), peer: peer.clone() };
    }
    if let Some(spare) = seen.voters().find(|member| !seen.is_wanted(member)) {
        let left = answering - usize::from(spare.answers);
        if left >= majority(voters - 1) && voters > 1 {
            return Step::Remove { id: spare.id };
        }
        let why = "without it the other managers would be no majority".to_owned();
        return Step::Wait { why: format!("a manager is to go, and stays: {why}") };
    }
    match any_missing {
        true => Step::Wait { why: "a new manager has not told yet where others reach it".to_owned() },
        false => Step::Done,
    }
}

/// Whether etcd's refusal of a step passes by itself: it wants to see its members well for five seconds before it
/// takes another, and a learner that has not caught up gets no vote.
pub fn is_passing(refusal: &str) -> bool {
    [
        "unhealthy cluster",
        "not enough started members",
        "in sync with leader",
        "too many learner members",
        "leader changed",
        "request timed out",
    ]
    .iter()
    .any(|known| refusal.contains(known))
}

/// How long to wait after that many refusals in a row.
pub fn pause(refusals: u32) -> Duration {
    (Duration::from_millis(250) * 2_u32.pow(refusals.min(5))).min(Duration::from_secs(5))
}

/// What is not as it should be with so many managers, of which so many answer.
pub fn warning(voters: usize, answering: usize) -> Option<String> {
    let needed = majority(voters);
    if voters > 0 && answering < needed {
        return Some(format!(
            "{answering} of {voters} managers answer, and {needed} must: nothing can be changed, traffic goes on; \
             start the others, or see 'mesh cluster recover'"
        ));
    }
    if answering < voters {
        let more = answering - needed;
        return Some(format!("{answering} of {voters} managers answer; {more} more may fail"));
    }
    match voters {
        2 => Some(
            "with two managers the loss of either one stops all changes: promote a third, or demote one"
                .to_owned(),
        ),
        4 => Some("four managers bear no more losses than three: promote a fifth, or demote one".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
