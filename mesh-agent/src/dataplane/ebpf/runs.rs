//! **Decision.** Who has which part of the array of slots: a buddy allocator. Pure.
//!
//! Tables are powers of two and never move while their frontend keeps its size, so a program always finds a whole
//! table where its frontend says.

use std::collections::BTreeSet;

/// Runs of slots: free ones by their order (the logarithm of their length).
#[derive(Debug)]
pub(super) struct Runs {
    free: Vec<BTreeSet<u32>>,
}

impl Runs {
    /// All of `2^order` slots.
    pub(super) fn new(order: u32) -> Self {
        let mut free = vec![BTreeSet::new(); order as usize + 1];
        if let Some(whole) = free.last_mut() {
            whole.insert(0);
        }
        Self { free }
    }

    /// The beginning of a free run of `2^order` slots.
    pub(super) fn take(&mut self, order: u32) -> Option<u32> {
        let from = (order as usize..self.free.len()).find(|size| !self.free[*size].is_empty())?;
        let start = self.free[from].pop_first()?;
        // What is too much of it goes back, in halves.
        for size in order as usize..from {
            self.free[size].insert(start + (1 << size));
        }
        Some(start)
    }

    /// Takes a certain run, as found in the kernel; false if part of it is taken.
    pub(super) fn take_at(&mut self, start: u32, order: u32) -> bool {
        let around = |size: usize| start >> size << size;
        let sizes = order as usize..self.free.len();
        let Some(from) = sizes.into_iter().find(|size| self.free[*size].contains(&around(*size))) else {
            return false;
        };
        if start != around(order as usize) {
            return false;
        }
        self.free[from].remove(&around(from));
        for size in order as usize..from {
            self.free[size].insert(around(size) ^ (1 << size));
        }
        true
    }

    /// Gives a run back, joined with its other half if that is free, too.
    pub(super) fn give_back(&mut self, start: u32, order: u32) {
        let (mut start, mut size) = (start, order as usize);
        while size + 1 < self.free.len() && self.free[size].remove(&(start ^ (1 << size))) {
            start &= !(1 << size);
            size += 1;
        }
        self.free[size].insert(start);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_in_use_is_not_given_twice() {
        let mut runs = Runs::new(4);
        assert!(runs.take_at(8, 2));
        assert!(!runs.take_at(8, 0) && !runs.take_at(8, 3) && !runs.take_at(9, 1));
        let taken: Vec<_> = std::iter::from_fn(|| runs.take(2)).collect();
        assert_eq!(taken, [12, 0, 4]);
        runs.give_back(8, 2);
        assert_eq!(runs.take(2), Some(8));
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_all_come_back(orders in prop::collection::vec(0_u32..6, 1..40)) {
            let mut runs = Runs::new(8);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for order in orders {
                if let Some(start) = runs.take(order) {
                    let meets = taken.iter().any(|(other, size)| start < other + (1 << size) && *other < start + (1 << order));
                    prop_assert!(!meets);
                    taken.push((start, order));
                }
            }
            for (start, order) in taken {
                runs.give_back(start, order);
            }
            prop_assert_eq!(runs.take(8), Some(0));
        }
    }
}
