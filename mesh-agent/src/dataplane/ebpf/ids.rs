//! Numbers of map entries, handed out so that a freed one stays unused for as long as possible.
//!
//! A program may have read a number just before the agent frees it. Were it the next to be handed
//! out, that program would send its flow to another service's backend.

use std::ops::Range;

/// The numbers of `range`, and which of them are in use.
#[derive(Debug)]
pub(super) struct Ids {
    range: Range<u32>,
    /// A bit for each.
    used: Vec<u64>,
    next: u32,
}

impl Ids {
    pub(super) fn new(range: Range<u32>) -> Self {
        let used = vec![0; (range.end / 64 + 1) as usize];
        Self { next: range.start, used, range }
    }

    /// The first unused number after the one that was taken last.
    pub(super) fn take(&mut self) -> Option<u32> {
        let ahead = self.next..self.range.end;
        let behind = self.range.start..self.next;
        let id = ahead.chain(behind).find(|id| !self.is_used(*id))?;
        self.mark(id, true);
        self.next = id + 1;
        Some(id)
    }

    /// A certain number, as found in the kernel; false if it is taken, or none of ours.
    pub(super) fn take_that(&mut self, id: u32) -> bool {
        let free = self.range.contains(&id) && !self.is_used(id);
        if free {
            self.mark(id, true);
        }
        free
    }

    pub(super) fn give_back(&mut self, id: u32) {
        self.mark(id, false);
    }

    fn is_used(&self, id: u32) -> bool {
        self.used.get((id / 64) as usize).is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn mark(&mut self, id: u32, used: bool) {
        let Some(word) = self.used.get_mut((id / 64) as usize) else { return };
        let bit = 1 << (id % 64);
        *word = if used { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_number_comes_back_last() {
        let mut ids = Ids::new(1..4);
        assert_eq!(ids.take(), Some(1));
        ids.give_back(1);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(2), Some(3), Some(1)));
        assert_eq!(ids.take(), None);
    }

    #[test]
    fn a_number_that_was_found_is_not_given_out() {
        let mut ids = Ids::new(1..4);
        assert!(ids.take_that(2) && !ids.take_that(2) && !ids.take_that(4) && !ids.take_that(0));
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(1), Some(3), None));
    }
}
