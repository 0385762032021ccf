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

/// Compares two keyed collections. Values behind an `Arc` that both share are equal without a look at them.
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
pub fn diff<K: Ord + Clone, V: Eq + Clone>(have: &BTreeMap<K, V>, want: &BTreeMap<K, V>) -> Changes<K, V> {
    let mut changes =
        Changes { added: BTreeMap::new(), changed: BTreeMap::new(), removed: BTreeMap::new(), unchanged: 0 };
    // Side by side, for both are sorted: a look-up per key would take several times as long.
    let (mut left, mut right) = (have.iter().peekable(), want.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((have, _)), Some((want, _))) => have.cmp(want),
        };
        let there = left.next_if(|_| order.is_le());
        let wanted = right.next_if(|_| order.is_ge());
        match (there, wanted) {
            (Some((_, there)), Some((_, wanted))) if there == wanted => changes.unchanged += 1,
            (Some(_), Some((key, wanted))) => _ = changes.changed.insert(key.clone(), wanted.clone()),
            (Some((key, there)), None) => _ = changes.removed.insert(key.clone(), there.clone()),
            (None, Some((key, wanted))) => _ = changes.added.insert(key.clone(), wanted.clone()),
            (None, None) => {}
        }
    }
}
