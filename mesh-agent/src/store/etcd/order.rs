//! **Decision.** What of a watch's messages is told, and in which order: whole revisions, each once, and heartbeats
//! that are true.
//!
//! etcd before 3.4.25 and 3.5.8 answers the question how far a watch has come past the events that are still on
//! their way. So an answer is believed only when the next one comes and no event came in between, and one that turns
//! out to have been wrong all the same ends the watch.

use mesh_core::kv::{Batch, Event, Rev};

use crate::store::WatchEnd;

/// How far a watch has come.
#[derive(Debug)]
pub(super) struct Order {
    /// Events up to here were told.
    event: Rev,
    /// It was said that nothing is missing up to here.
    told: Rev,
    /// Nothing seems to be missing up to here.
    supposed: Option<Rev>,
}

impl Order {
    /// Of a watch of what comes after a revision.
    pub(super) fn after(rev: Rev) -> Self {
        Self { event: rev, told: rev, supposed: None }
    }

    /// Up to where nothing is missing.
    pub(super) fn seen(&self) -> Rev {
        self.event.max(self.told)
    }

    /// Takes the events of a message. A message has whole revisions, but may come twice.
    pub(super) fn events(&mut self, events: Vec<(Rev, Event)>) -> Result<Vec<Batch>, WatchEnd> {
        let mut batches: Vec<Batch> = Vec::new();
        for (rev, event) in events {
            match batches.last_mut().filter(|batch| batch.rev == rev) {
                Some(batch) => batch.events.push(event),
                None if rev <= self.event => {}
                // It is too late to tell it in order: only a list puts that right.
                None if rev <= self.told => return Err(WatchEnd::Compacted(self.told)),
                None => {
                    self.event = rev;
                    batches.push(Batch { rev, events: vec![event] });
                }
            }
        }
        self.supposed = None;
        Ok(batches)
    }

    /// Takes a message that says how far the watch has come; gives the heartbeat that can be told now.
    pub(super) fn progress(&mut self, rev: Rev) -> Option<Batch> {
        let believed = self.supposed.replace(rev)?;
        self.told = self.seen().max(believed);
        Some(Batch { rev: self.told, events: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(rev: u64, key: &str) -> (Rev, Event) {
        (Rev(rev), Event::Delete(key.to_owned()))
    }

    fn shown(batches: &[Batch]) -> Vec<(u64, usize)> {
        batches.iter().map(|batch| (batch.rev.0, batch.events.len())).collect()
    }

    #[test]
    fn revisions_are_whole_and_told_once() {
        let mut order = Order::after(Rev(3));
        let batches = order.events(vec![event(3, "a"), event(4, "a"), event(4, "b"), event(6, "a")]).unwrap();
        assert_eq!(shown(&batches), [(4, 2), (6, 1)]);
        assert_eq!(
            shown(&order.events(vec![event(4, "a"), event(6, "a"), event(7, "c")]).unwrap()),
            [(7, 1)]
        );
        assert_eq!(order.seen(), Rev(7));
    }

    #[test]
    fn progress_is_believed_when_nothing_comes_after_it() {
        let mut order = Order::after(Rev(0));
        assert_eq!(order.progress(Rev(9)), None, "the events up to 9 may still be on their way");
        assert_eq!(shown(&order.events(vec![event(8, "a")]).unwrap()), [(8, 1)]);
        assert_eq!(order.progress(Rev(9)), None);
        assert_eq!(order.progress(Rev(12)).unwrap().rev, Rev(9));
        assert_eq!(order.progress(Rev(12)).unwrap().rev, Rev(12));
    }

    #[test]
    fn a_member_that_lags_takes_nothing_back() {
        let mut order = Order::after(Rev(20));
        order.progress(Rev(10));
        assert_eq!(order.progress(Rev(10)).unwrap().rev, Rev(20));
    }

    #[test]
    fn an_event_that_comes_after_it_was_said_that_all_is_told_ends_the_watch() {
        let mut order = Order::after(Rev(0));
        order.events(vec![event(2, "a")]).unwrap();
        order.progress(Rev(9));
        order.progress(Rev(9));
        assert!(order.events(vec![event(2, "a")]).unwrap().is_empty(), "twice is not late");
        assert_eq!(order.events(vec![event(5, "b")]), Err(WatchEnd::Compacted(Rev(9))));
    }
}
