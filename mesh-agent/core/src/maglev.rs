//! **Decision.** Which slot of a service's table leads to which backend: Maglev hashing.
//!
//! A flow's hash picks a slot, the slot names the backend. The table depends on the set of backends alone, so
//! every node sends a flow to the same backend, and a backend that comes or goes moves few flows of others.
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4.
//! Why tables are powers of two: `docs/adr/0013`.

use std::time::Duration;

/// The smallest table of several backends, in slots.
const MIN_SLOTS: usize = 256;
/// The largest table, in slots: 256 KiB.
const MAX_SLOTS: usize = 65_536;
/// Slots per backend. The paper (§3.4) and Cilium's manual ask for 100: shares are then equal to within 1 %
/// and one backend's going moves about 2 % of the other slots.
const SLOTS_PER_BACKEND: usize = 100;

/// The share of its weight that a new backend starts with, in percent. Envoy's default.
const FIRST_PERCENT: u128 = 10;
/// How often a weight changes during its slow start: 10 %, 20 %, … 100 %.
const STEPS: u128 = 9;

/// A backend and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weighted {
    /// Who it is, on every node and for its whole life: a hash of the task's id and the network. It need not be
    /// spread well. Of two backends with the same key both get their share.
    pub key: u64,
    /// Its share of the slots in relation to the others' weights; 0: none.
    pub weight: u16,
    /// What is written into its slots.
    pub value: u32,
}

/// How many slots the table of so many backends has: 1 for none or one (nothing to choose), else the next power of
/// two of 100 per backend, from 256 to 65,536.
///
/// Above 655 backends, shares and moves grow coarser: 1,000 backends have 65 slots each. A table of another size is
/// another table: about half of the flows go elsewhere when the size doubles (if a slot is the hash's low bits; more
/// otherwise).
pub fn size(backends: usize) -> u32 {
    let slots = match backends {
        0 | 1 => 1,
        // Cut off first, so that nothing overflows.
        _ => (backends.min(MAX_SLOTS) * SLOTS_PER_BACKEND).next_power_of_two().clamp(MIN_SLOTS, MAX_SLOTS),
    };
    slots as u32
}

/// Fills a table. Without any backend of a weight above 0, all slots are 0.
///
/// The result depends on nothing but the set of backends and the number of slots, on every machine and in every
/// release. Every backend of a weight above 0 has a slot (while slots last), and as many as its share, to within
/// one slot and, if weights differ, `backends / slots` of the share.
///
/// ```
/// use mesh_core::maglev::{Weighted, fill, size};
/// let backends = [Weighted { key: 1, weight: 1, value: 7 }, Weighted { key: 2, weight: 3, value: 8 }];
/// let mut slots = vec![0; size(backends.len()) as usize];
/// fill(&backends, &mut slots);
/// assert_eq!(slots.iter().filter(|slot| **slot == 7).count(), 256 / 4);
/// ```
///
/// # Panics
///
/// If the number of slots is neither 0 nor a power of two.
pub fn fill(backends: &[Weighted], slots: &mut [u32]) {
    let mut sorted: Vec<&Weighted> = backends.iter().filter(|backend| backend.weight > 0).collect();
    sorted.sort_unstable_by_key(|backend| (backend.key, backend.weight, backend.value));
    let Some(largest) = sorted.iter().map(|backend| u32::from(backend.weight)).max() else {
        slots.fill(0);
        return;
    };
    if slots.is_empty() {
        return;
    }
    assert!(slots.len().is_power_of_two(), "a table of {} slots, which is no power of two", slots.len());
    let mut turns: Vec<Turn> = sorted.into_iter().map(|backend| Turn::new(backend, largest)).collect();
    // A byte each: the fastest to ask, and the first 16 Ki of them stay in the nearest cache.
    let mut taken = vec![0; slots.len()];
    let mut free = slots.len();
    loop {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < largest {
                continue;
            }
            turn.credit -= largest;
            // The fuller the table, the more of the wanted slots are taken.
            let slot = if free > slots.len() / 2 { turn.next::<4>(&taken) } else { turn.next::<8>(&taken) };
            taken[slot] = 1;
            slots[slot] = turn.value;
            free -= 1;
            if free == 0 {
                return;
            }
        }
    }
}

/// A backend while the table is filled. It wants the slots in the order `(position + i * skip) ^ flip`, modulo their
/// number, which comes by each of them once since `skip` is odd.
struct Turn {
    position: usize,
    skip: usize,
    /// Without it, one backend's order is now and then nearly another's (the same skip, or three times it), and when
    /// one of the two goes, many slots of others move: in 3,000 sets of three at worst 37 %, with it 6 %.
    flip: usize,
    /// Grows by the weight each round; a slot costs the largest weight.
    credit: u32,
    weight: u32,
    value: u32,
}

impl Turn {
    fn new(backend: &Weighted, largest: u32) -> Self {
        let (order, other) = (spread(backend.key), spread(!backend.key));
        let weight = u32::from(backend.weight);
        Self {
            position: (order & 0xffff_ffff) as usize,
            skip: (order >> 32) as usize | 1,
            flip: (other & 0xffff_ffff) as usize,
            // Enough for a slot in the first round: a small weight is not nothing.
            credit: largest - weight,
            weight,
            value: backend.value,
        }
    }

    /// The next slot that it wants and that is free; there must be one.
    ///
    /// Looks at `N` at a time without a branch: whether a slot is free cannot be predicted, and a wrong prediction
    /// costs more than a few looks.
    #[inline]
    fn next<const N: usize>(&mut self, taken: &[u8]) -> usize {
        let mask = taken.len() - 1;
        loop {
            let (mut seen, mut at) = (0u32, self.position);
            for bit in 0..N {
                seen |= u32::from(taken[(at ^ self.flip) & mask]) << bit;
                at = at.wrapping_add(self.skip);
            }
            let passed = seen.trailing_ones() as usize;
            if passed < N {
                let wanted = self.position.wrapping_add(self.skip.wrapping_mul(passed));
                self.position = wanted.wrapping_add(self.skip);
                return (wanted ^ self.flip) & mask;
            }
            self.position = at;
        }
    }
}

/// SplitMix64's step: every bit of the key changes about half of the result's. Steele et al., "Fast Splittable
/// Pseudorandom Number Generators", OOPSLA 2014. No change of it, ever: nodes of two releases must agree.
fn spread(key: u64) -> u64 {
    let hash = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The weight of a backend that has been in the balance for `age`: from 10 % of `weight`, but at least 1, to all
/// of it after `window`. It changes at most nine times on its way, since every change rewrites tables. A window of
/// zero is over at once; a weight of 0 stays 0.
pub fn slow_start(weight: u16, age: Duration, window: Duration) -> u16 {
    if age >= window || weight == 0 {
        return weight;
    }
    let step = age.as_nanos() * STEPS / window.as_nanos();
    let percent = FIRST_PERCENT + step * (100 - FIRST_PERCENT) / STEPS;
    u16::try_from(u128::from(weight) * percent / 100).unwrap_or(weight).max(1)
}

/// The age at which [`slow_start`] gives another share than at this one; none: it gives all of it already.
pub fn next_step(age: Duration, window: Duration) -> Option<Duration> {
    if age >= window {
        return None;
    }
    let step = age.as_nanos() * STEPS / window.as_nanos() + 1;
    let nanos = (step * window.as_nanos()).div_ceil(STEPS);
    let second = 1_000_000_000;
    Some(Duration::new(u64::try_from(nanos / second).unwrap_or(u64::MAX), (nanos % second) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(key: u64, weight: u16) -> Weighted {
        Weighted { key, weight, value: 100 + key as u32 }
    }

    fn table(backends: &[Weighted], slots: usize) -> Vec<u32> {
        let mut table = vec![u32::MAX; slots];
        fill(backends, &mut table);
        table
    }

    #[test]
    fn sizes_are_powers_of_two_with_a_hundred_slots_per_backend() {
        let expected = [
            (0, 1),
            (1, 1),
            (2, 256),
            (3, 512),
            (10, 1_024),
            (11, 2_048),
            (40, 4_096),
            (100, 16_384),
            (655, 65_536),
            (usize::MAX, 65_536),
        ];
        for (backends, slots) in expected {
            assert_eq!(size(backends), slots, "{backends} backends");
        }
    }

    #[test]
    fn nobody_is_all_zeros_whatever_was_there() {
        assert_eq!(table(&[], 4), [0; 4]);
        assert_eq!(table(&[backend(1, 0), backend(2, 0)], 4), [0; 4]);
        fill(&[backend(1, 1)], &mut []);
    }

    #[test]
    fn one_backend_has_everything() {
        assert_eq!(table(&[backend(1, 1)], 1), [101]);
        assert_eq!(table(&[backend(1, u16::MAX), backend(2, 0)], 256), [101; 256]);
    }

    #[test]
    fn more_backends_than_slots_fill_them() {
        let backends: Vec<_> = (0..10).map(|key| backend(key, 1)).collect();
        assert_eq!(table(&backends, 1), [100]);
        assert!(table(&backends, 8).iter().all(|slot| (100..108).contains(slot)));
    }

    #[test]
    fn the_least_weight_beside_the_greatest_has_a_slot() {
        let table = table(&[backend(1, u16::MAX), backend(2, 1)], 256);
        assert_eq!(table.iter().filter(|slot| **slot == 102).count(), 1);
    }

    #[test]
    fn two_of_one_key_share() {
        let twins = [Weighted { value: 1, ..backend(9, 5) }, Weighted { value: 2, ..backend(9, 5) }];
        assert_eq!(table(&twins, 256).iter().filter(|slot| **slot == 1).count(), 128);
    }

    #[test]
    #[should_panic(expected = "no power of two")]
    fn other_sizes_are_a_mistake() {
        table(&[backend(1, 1)], 100);
    }

    /// Nodes of two releases must agree: a change here moves flows during an upgrade.
    #[test]
    fn tables_are_the_same_in_every_release() {
        let backends = [backend(1, 1), backend(2, 2), backend(3, 4)];
        let expected = [101, 102, 102, 102, 102, 102, 103, 103, 103, 101, 103, 103, 103, 103, 103, 101];
        assert_eq!(table(&backends, 16), expected);
    }

    #[test]
    fn a_slow_start_has_ten_weights() {
        let window = Duration::from_secs(90);
        let at = |seconds| slow_start(1_000, Duration::from_secs(seconds), window);
        assert_eq!(
            [at(0), at(9), at(10), at(45), at(89), at(90), at(9_000)],
            [100, 100, 200, 500, 900, 1_000, 1_000]
        );
        let mut weights: Vec<_> = (0..=90).map(at).collect();
        assert!(weights.is_sorted());
        weights.dedup();
        assert_eq!(weights.len(), 10);
    }

    #[test]
    fn a_slow_start_tells_its_next_step() {
        for window in [1, 8, 9, 10, 1_000, 3_599_999_999_993].map(Duration::from_nanos) {
            let (mut age, mut share, mut steps) =
                (Duration::ZERO, slow_start(100, Duration::ZERO, window), 0);
            while let Some(next) = next_step(age, window) {
                assert!(age < next && next <= window);
                assert_eq!(slow_start(100, next - Duration::from_nanos(1), window), share);
                assert!(slow_start(100, next, window) > share, "{share} at {next:?} of {window:?}");
                (age, share, steps) = (next, slow_start(100, next, window), steps + 1);
            }
            assert_eq!((age, share), (window, 100));
            assert!(steps <= 9);
        }
        assert_eq!(next_step(Duration::ZERO, Duration::ZERO), None);
        assert_eq!(next_step(Duration::MAX, Duration::MAX), None);
    }

    #[test]
    fn a_slow_start_keeps_the_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(slow_start(7, Duration::ZERO, Duration::ZERO), 7, "no window");
        assert_eq!(slow_start(7, Duration::ZERO, second), 1, "at least 1");
        assert_eq!(slow_start(0, Duration::ZERO, second), 0, "none stays none");
        assert_eq!(slow_start(u16::MAX, Duration::ZERO, Duration::MAX), 6_553);
        assert_eq!(slow_start(u16::MAX, Duration::MAX - second, Duration::MAX), 58_981);
    }
}
