//! What holds for every table: shares, few moves, and the same on every node.

use std::collections::BTreeMap;

use mesh_core::maglev::{Weighted, fill, size};
use proptest::prelude::*;

/// Backends of distinct keys; the value is the position, plus 1.
fn backends(weight: impl Strategy<Value = u16>, most: usize) -> impl Strategy<Value = Vec<Weighted>> {
    prop::collection::btree_map(any::<u64>(), weight, 2..most).prop_map(|all| {
        let number = |(value, (key, weight))| Weighted { key, weight, value };
        (1..).zip(all).map(number).collect()
    })
}

fn table_of(backends: &[Weighted], slots: u32) -> Vec<u32> {
    let mut table = vec![u32::MAX; slots as usize];
    fill(backends, &mut table);
    table
}

fn table(backends: &[Weighted]) -> Vec<u32> {
    table_of(backends, size(backends.len()))
}

fn share(backends: &[Weighted], of: &Weighted) -> f64 {
    f64::from(of.weight) / backends.iter().map(|backend| f64::from(backend.weight)).sum::<f64>()
}

/// How many of the slots that `keep` holds for lead elsewhere afterwards, as a share of all.
fn moved(before: &[u32], after: &[u32], keep: impl Fn(u32, u32) -> bool) -> f64 {
    let pairs = before.iter().zip(after);
    pairs.filter(|(a, b)| a != b && keep(**a, **b)).count() as f64 / before.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn shares_follow_weights(backends in backends(prop_oneof![0..4u16, any::<u16>()], 40), slots in 0..17u32) {
        let slots = 1u32 << slots;
        let table = table_of(&backends, slots);
        let mut counts = BTreeMap::new();
        table.iter().for_each(|value| *counts.entry(*value).or_insert(0u32) += 1);
        if backends.iter().all(|backend| backend.weight == 0) {
            prop_assert_eq!(counts, BTreeMap::from([(0, slots)]));
            return Ok(());
        }
        for backend in &backends {
            let count = f64::from(counts.remove(&backend.value).unwrap_or(0));
            let ideal = f64::from(slots) * share(&backends, backend);
            let coarse = backends.len() as f64 / f64::from(slots);
            prop_assert!((count - ideal).abs() <= 1.0 + ideal * coarse, "{count} slots instead of {ideal}");
            prop_assert!(backend.weight > 0 || count == 0.0);
            prop_assert!(backend.weight == 0 || count > 0.0 || backends.len() > slots as usize);
        }
        prop_assert!(counts.is_empty(), "every slot leads to somebody: {counts:?}");
    }

    #[test]
    fn equal_weights_have_equal_shares(backends in backends(Just(100), 100)) {
        let mut counts = BTreeMap::new();
        table(&backends).iter().for_each(|value| *counts.entry(*value).or_insert(0u32) += 1);
        let (least, most) = (counts.values().min(), counts.values().max());
        prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{counts:?}");
    }

    #[test]
    fn order_is_irrelevant(
        (sorted, shuffled) in backends(any::<u16>(), 40).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
    ) {
        prop_assert_eq!(table(&sorted), table(&shuffled));
    }

    /// What is written does not decide where.
    #[test]
    fn values_are_irrelevant(backends in backends(any::<u16>(), 40)) {
        let renamed: Vec<_> = backends.iter().map(|b| Weighted { value: u32::MAX - b.value, ..*b }).collect();
        let wanted: Vec<_> = table(&backends).iter().map(|value| if *value == 0 { 0 } else { u32::MAX - value }).collect();
        prop_assert_eq!(table(&renamed), wanted);
    }

    /// One goes, or, seen from the other end, one comes. Its slots move; of the others' few.
    #[test]
    fn who_goes_moves_few_others(backends in backends(Just(100), 130), who in any::<prop::sample::Index>()) {
        let gone = *who.get(&backends);
        let slots = size(backends.len());
        let rest: Vec<_> = backends.iter().copied().filter(|backend| *backend != gone).collect();
        let others = moved(&table_of(&backends, slots), &table_of(&rest, slots), |before, _| before != gone.value);
        prop_assert!(others <= 0.02 + 1.0 / backends.len() as f64, "{others} of {} backends", backends.len());
        prop_assert!(others <= 0.12, "{others} of {} backends", backends.len());
    }

    /// A weight of 0 is as good as gone.
    #[test]
    fn no_weight_is_no_backend(backends in backends(any::<u16>(), 40), who in any::<prop::sample::Index>()) {
        let gone = *who.get(&backends);
        let slots = size(backends.len());
        let rest: Vec<_> = backends.iter().copied().filter(|backend| *backend != gone).collect();
        let mut mute = backends;
        mute.iter_mut().filter(|backend| **backend == gone).for_each(|backend| backend.weight = 0);
        prop_assert_eq!(table_of(&mute, slots), table_of(&rest, slots));
    }

    /// Weights are multiplied during a slow start: that alone moves nothing.
    #[test]
    fn only_relations_of_weights_count(backends in backends(0..6_554u16, 40), factor in 1..=10u16) {
        let scaled: Vec<_> = backends.iter().map(|b| Weighted { weight: b.weight * factor, ..*b }).collect();
        prop_assert_eq!(table(&backends), table(&scaled));
    }

    /// As in slow start: one weight changes, and little more than the difference moves.
    #[test]
    fn a_weight_moves_its_difference(
        backends in backends(50..150u16, 100), who in any::<prop::sample::Index>(), weight in 1..200u16
    ) {
        let who = who.index(backends.len());
        let mut changed = backends.clone();
        changed[who].weight = weight;
        let difference = (share(&backends, &backends[who]) - share(&changed, &changed[who])).abs();
        let moved = moved(&table(&backends), &table(&changed), |_, _| true);
        prop_assert!(moved <= difference + 0.06, "{moved} for a difference of {difference}");
    }
}
