//! **Decision.** Who says of itself that it leaves.

use std::collections::BTreeMap;

use super::Millis;
use crate::model::NodeId;

/// How long it counts unless it is said again. By then the record says so, or it was a mistake.
pub const HINT_LIFE: Millis = 30_000;

/// Nodes that said that they leave. That only takes away: nothing that is said here brings a node into a balance.
#[derive(Debug, Default)]
pub struct Hints {
    until: BTreeMap<NodeId, Millis>,
}

impl Hints {
    /// A node says of itself that it leaves, or that it does not after all.
    pub fn told(&mut self, id: &NodeId, leaving: bool, now: Millis) {
        if leaving {
            self.until.insert(id.clone(), now + HINT_LIFE);
        } else {
            self.until.remove(id);
        }
    }

    /// Time goes by, and only these nodes are there.
    pub fn expire(&mut self, now: Millis, known: impl Fn(&NodeId) -> bool) {
        self.until.retain(|id, until| now < *until && known(id));
    }

    /// Who leaves.
    pub fn leaving(&self) -> impl Iterator<Item = &NodeId> {
        self.until.keys()
    }
}

/// So many times it is said when it begins, in a row: a datagram may be lost.
const COPIES: u32 = 3;
/// Every so many ticks (`Timing::DEFAULT`) after that.
const RENEW: u32 = 50;

/// What a node says of itself.
#[derive(Debug, Default)]
pub struct Announcer {
    leaving: bool,
    ticks: u32,
}

impl Announcer {
    /// Ten times a second: whether to say now that one leaves, or that one stays after all. A node that never left says
    /// nothing.
    pub fn tick(&mut self, leaving: bool) -> Option<bool> {
        if leaving != self.leaving {
            (self.leaving, self.ticks) = (leaving, 1);
            return Some(leaving);
        }
        if self.ticks == 0 {
            return None;
        }
        let said = self.ticks < COPIES || leaving && self.ticks.is_multiple_of(RENEW);
        // Whoever stays has said enough.
        self.ticks = if leaving || self.ticks < COPIES { self.ticks.saturating_add(1) } else { 0 };
        said.then_some(leaving)
    }

    /// Whether there is nothing more to say.
    pub fn is_silent(&self) -> bool {
        self.ticks == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hint_ends_by_itself_and_when_it_is_taken_back() {
        let (mut hints, id) = (Hints::default(), NodeId::new("n1"));
        let is = |hints: &Hints| hints.leaving().count() == 1;
        hints.told(&id, true, 100);
        hints.expire(100 + HINT_LIFE - 1, |_| true);
        assert!(is(&hints));
        hints.told(&id, true, 20_000);
        hints.expire(20_000 + HINT_LIFE - 1, |_| true);
        assert!(is(&hints), "it was renewed");
        hints.expire(20_000 + HINT_LIFE, |_| true);
        assert!(!is(&hints));
        hints.told(&id, true, 0);
        hints.told(&id, false, 0);
        assert!(!is(&hints));
        hints.told(&id, true, 0);
        hints.expire(0, |_| false);
        assert!(!is(&hints), "it is no node any more");
    }

    #[test]
    fn it_is_said_three_times_and_then_now_and_then() {
        let mut announcer = Announcer::default();
        assert!((0..200).all(|_| announcer.tick(false).is_none()));
        let said: Vec<_> = (0..120).filter(|_| announcer.tick(true) == Some(true)).collect();
        assert_eq!(said, [0, 1, 2, 50, 100]);
        let said: Vec<_> = (0..120).filter(|_| announcer.tick(false) == Some(false)).collect();
        assert_eq!(said, [0, 1, 2]);
    }

    proptest! {
        /// However often a node changes its mind and whichever single datagram is lost: who listens knows it in the end.
        #[test]
        fn who_listens_knows(mind in prop::collection::vec(any::<bool>(), 1..300), lost: prop::sample::Index) {
            let (mut announcer, mut hints, id) = (Announcer::default(), Hints::default(), NodeId::new("n1"));
            let last = *mind.last().unwrap_or(&false);
            let mut said = Vec::new();
            for (tick, leaving) in (0..).zip(mind.iter().copied().chain([last; 3])) {
                said.extend(announcer.tick(leaving).map(|word| (tick * 100, word)));
            }
            let lost = (!said.is_empty()).then(|| lost.index(said.len()));
            let end = (mind.len() as u64 + 3) * 100;
            for (place, (now, word)) in said.into_iter().enumerate() {
                if Some(place) != lost {
                    hints.told(&id, word, now);
                }
            }
            hints.expire(end, |_| true);
            prop_assert_eq!(hints.leaving().count() == 1, last);
        }
    }
}
