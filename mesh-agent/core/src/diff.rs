//! **Decision.** Keyed difference between what is there and what is wanted.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// What turns `have` into `want`, by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes<K, V> {
    /// Wanted and absent.
    pub added: BTreeMap<K, V>,
    /// There, with another value: the value that is wanted.
    pub changed: BTreeMap<K, V>,
    /// There and not wanted: the value that is there.
    pub removed: BTreeMap<K, V>,
    /// How many keys are already as wanted.
    pub unchanged: usize,
}

impl<K, V> Changes<K, V> {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    /// How many keys are to be touched.
    pub fn len(&self) -> usize {
        self.added.len() + self.changed.len() + self.removed.len()
    }
}

/// Compares two keyed collections, each in the order of its keys. Values behind an `Arc` that both share are equal without a look at them.
///
/// ```
/// use std::collections::BTreeMap;
/// let have = BTreeMap::from([("a", 1), ("b", 2)]);
/// let want = BTreeMap::from([("b", 3), ("c", 4)]);
/// let changes = mesh_core::diff::diff(&have, &want);
/// assert_eq!(changes.added, BTreeMap::from([("c", 4)]));
/// assert_eq!(changes.changed, BTreeMap::from([("b", 3)]));
/// assert_eq!(changes.removed, BTreeMap::from([("a", 1)]));
/// ```
pub fn diff<'a, K: Ord + Clone + 'a, V: Eq + Clone + 'a>(
    have: impl IntoIterator<Item = (&'a K, &'a V)>,
    want: impl IntoIterator<Item = (&'a K, &'a V)>,
) -> Changes<K, V> {
    let mut changes =
        Changes { added: BTreeMap::new(), changed: BTreeMap::new(), removed: BTreeMap::new(), unchanged: 0 };
    // Side by side, for both are sorted: a look-up per key would take several times as long.
    let (mut left, mut right) = (have.into_iter(), want.into_iter());
    let (mut there, mut wanted) = (left.next(), right.next());
    loop {
        let order = match (there, wanted) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // Nearly always, and quicker to find out than an order.
            (Some((have, _)), Some((want, _))) if have == want => Ordering::Equal,
            (Some((have, _)), Some((want, _))) => have.cmp(want),
        };
        match (there.filter(|_| order.is_le()), wanted.filter(|_| order.is_ge())) {
            (Some((_, there)), Some((_, wanted))) if there == wanted => changes.unchanged += 1,
            (Some(_), Some((key, wanted))) => _ = changes.changed.insert(key.clone(), wanted.clone()),
            (Some((key, there)), None) => _ = changes.removed.insert(key.clone(), there.clone()),
            (None, Some((key, wanted))) => _ = changes.added.insert(key.clone(), wanted.clone()),
            (None, None) => {}
        }
        if order.is_le() {
            there = left.next();
        }
        if order.is_ge() {
            wanted = right.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// Key by key, as it is said.
    fn slowly(have: &BTreeMap<u8, u8>, want: &BTreeMap<u8, u8>) -> Changes<u8, u8> {
        let of = |map: &BTreeMap<u8, u8>, which: &dyn Fn(&u8, &u8) -> bool| {
            map.iter().filter(|(key, value)| which(key, value)).map(|(key, value)| (*key, *value)).collect()
        };
        Changes {
            added: of(want, &|key, _| !have.contains_key(key)),
            changed: of(want, &|key, value| have.get(key).is_some_and(|there| there != value)),
            removed: of(have, &|key, _| !want.contains_key(key)),
            unchanged: want.iter().filter(|(key, value)| have.get(key) == Some(value)).count(),
        }
    }

    proptest! {
        #[test]
        fn every_key_is_in_one_place(have: BTreeMap<u8, u8>, want: BTreeMap<u8, u8>, both: BTreeMap<u8, u8>) {
            let (mut have, mut want) = (have, want);
            have.extend(&both);
            want.extend(&both);
            prop_assert_eq!(diff(&have, &want), slowly(&have, &want));
        }
    }

    /// Whoever looks at this one is stopped.
    #[derive(Debug)]
    struct Unseen;

    impl PartialEq for Unseen {
        fn eq(&self, _: &Self) -> bool {
            panic!("a look at what both share");
        }
    }

    impl Eq for Unseen {}

    #[test]
    fn what_both_share_is_not_looked_at() {
        let shared = BTreeMap::from([(1, Arc::new(Unseen))]);
        assert!(diff(&shared, &shared.clone()).is_empty());
    }
}
