//! An ordered map whose copies share what they have in common.
//!
//! A node publishes a copy of its world with each change. Of ten thousand records one has changed then: its chunk is
//! copied, and a pointer to each of the others.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Bound, Index, RangeBounds};
use std::slice;
use std::sync::Arc;

/// A chunk that would be longer is cut in two.
const CHUNK: usize = 64;

/// An ordered map, as [`std::collections::BTreeMap`]. A copy costs a pointer for each 32 to 64 entries.
pub struct SharedMap<K, V> {
    /// In order, and none empty.
    chunks: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
}

impl<K, V> SharedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All, by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { chunks: self.chunks.iter(), chunk: [].iter(), left: self.len }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// In which chunk a key is or would be, and where in it.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (usize, Result<usize, usize>)
    where
        K: Borrow<Q>,
    {
        let before = |chunk: &Arc<Vec<(K, V)>>| chunk.last().is_some_and(|(last, _)| last.borrow() < key);
        let at = self.chunks.partition_point(before);
        match self.chunks.get(at) {
            Some(chunk) => (at, chunk.binary_search_by(|(found, _)| found.borrow().cmp(key))),
            None => (at, Err(0)),
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (chunk, Ok(place)) = self.find(key) else { return None };
        self.chunks.get(chunk)?.get(place).map(|(_, value)| value)
    }

    /// A key that is equal to this one, with its value.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (chunk, Ok(place)) = self.find(key) else { return None };
        self.chunks.get(chunk)?.get(place).map(|(key, value)| (key, value))
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }
}

impl<K: Ord, V> SharedMap<K, V> {
    /// Those whose keys are within a range, by key.
    pub fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        let (chunk, place) = match range.start_bound() {
            Bound::Included(key) | Bound::Excluded(key) => self.find(key),
            Bound::Unbounded => (0, Err(0)),
        };
        let (Ok(place) | Err(place)) = place;
        let mut chunks = self.chunks.get(chunk..).unwrap_or_default().iter();
        let first = chunks.next().and_then(|chunk| chunk.get(place..)).unwrap_or_default();
        let rest = chunks.flat_map(|chunk| chunk.iter());
        let from = first.iter().chain(rest).map(|(key, value)| (key, value));
        let excluded = usize::from(matches!(
            (range.start_bound(), from.clone().next()),
            (Bound::Excluded(bound), Some((first, _))) if bound == first
        ));
        from.skip(excluded).take_while(move |(key, _)| range.contains(key))
    }
}

impl<K: Ord + Clone, V: Clone> SharedMap<K, V> {
    /// Puts a value at a key; what was there comes back.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (at, found) = self.find(&key);
        // What is greater than all goes to the end of the last chunk.
        let (at, found) = match self.chunks.len() {
            0 => {
                self.chunks.push(Arc::default());
                (0, found)
            }
            chunks if at == chunks => (at - 1, Err(self.chunks.last().map_or(0, |chunk| chunk.len()))),
            _ => (at, found),
        };
        match found {
            Ok(place) => {
                let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
                chunk.get_mut(place).map(|(_, there)| std::mem::replace(there, value))
            }
            Err(place) => {
                let (at, place) = self.room(at, place);
                Arc::make_mut(self.chunks.get_mut(at)?).insert(place, (key, value));
                self.len += 1;
                None
            }
        }
    }

    /// Where there is room for an entry that belongs to this place of this chunk.
    fn room(&mut self, at: usize, place: usize) -> (usize, usize) {
        let last = at + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(at).filter(|chunk| chunk.len() == CHUNK) else {
            return (at, place);
        };
        // What comes in the order of its keys leaves full chunks behind.
        let cut = if last && place == CHUNK { CHUNK } else { CHUNK / 2 };
        let more = Arc::make_mut(chunk).split_off(cut);
        self.chunks.insert(at + 1, Arc::new(more));
        place.checked_sub(cut).map_or((at, place), |place| (at + 1, place))
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (at, Ok(place)) = self.find(key) else { return None };
        let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
        chunk.get_mut(place).map(|(_, value)| value)
    }

    /// All values, by key, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.chunks.iter_mut().flat_map(|chunk| Arc::make_mut(chunk).iter_mut()).map(|(_, value)| value)
    }

    /// Keeps those that are to stay.
    pub fn retain(&mut self, mut stays: impl FnMut(&K, &mut V) -> bool) {
        let mut kept = Self::default();
        for (key, value) in self.iter() {
            let mut value = value.clone();
            if stays(key, &mut value) {
                kept.insert(key.clone(), value);
            }
        }
        *self = kept;
    }

    /// Leaves no room between entries: a map that was filled in no order has a third of it.
    pub fn compact(&mut self) {
        *self = self.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    }

    /// Takes all out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes a key out; its value comes back.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (at, Ok(place)) = self.find(key) else { return None };
        let chunk = Arc::make_mut(self.chunks.get_mut(at)?);
        let (_, value) = chunk.remove(place);
        self.len -= 1;
        if self.chunks.get(at).is_some_and(|chunk| chunk.is_empty()) {
            self.chunks.remove(at);
        }
        self.join(at);
        self.join(at.wrapping_sub(1));
        Some(value)
    }

    /// Makes one of a chunk and the next, if that is half a chunk at most.
    fn join(&mut self, at: usize) {
        let length = |at: usize| self.chunks.get(at).map_or(CHUNK, |chunk| chunk.len());
        if length(at) + length(at.wrapping_add(1)) > CHUNK / 2 {
            return;
        }
        let next = self.chunks.remove(at + 1);
        if let Some(chunk) = self.chunks.get_mut(at) {
            Arc::make_mut(chunk).extend(next.iter().cloned());
        }
    }
}

impl<K: Ord, V: PartialEq> SharedMap<K, V> {
    /// What another copy has otherwise, by key: what is here, and what is there. What both share is not looked at.
    pub fn changes<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Difference<'a, K, V>> {
        let (mut here, mut there) = (Cursor::of(self), Cursor::of(other));
        std::iter::from_fn(move || {
            loop {
                if here.at == 0
                    && there.at == 0
                    && let (Some(one), Some(two)) = (here.chunks.first(), there.chunks.first())
                    && Arc::ptr_eq(one, two)
                {
                    here.skip();
                    there.skip();
                    continue;
                }
                let order = match (here.entry(), there.entry()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((one, _)), Some((two, _))) => one.cmp(two),
                };
                let was = if order.is_le() { here.next() } else { None };
                let is = if order.is_ge() { there.next() } else { None };
                let key = was.or(is).map(|(key, _)| key)?;
                let (was, is) = (was.map(|(_, value)| value), is.map(|(_, value)| value));
                if was != is {
                    return Some((key, was, is));
                }
            }
        })
    }
}

/// A key, what one copy has there, and what the other.
type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

/// A place in a map.
struct Cursor<'a, K, V> {
    chunks: &'a [Arc<Vec<(K, V)>>],
    /// In the first of them.
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(map: &'a SharedMap<K, V>) -> Self {
        Self { chunks: &map.chunks, at: 0 }
    }

    fn entry(&self) -> Option<&'a (K, V)> {
        self.chunks.first()?.get(self.at)
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let entry = self.entry()?;
        self.at += 1;
        if self.entry().is_none() {
            self.skip();
        }
        Some(entry)
    }

    /// To where the next chunk begins.
    fn skip(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.at = 0;
    }
}

/// As everywhere: who indexes knows that it is there.
impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for SharedMap<K, V> {
    type Output = V;

    #[track_caller]
    fn index(&self, key: &Q) -> &V {
        self.get(key).unwrap_or_else(|| unreachable!("there is no such key"))
    }
}

/// The entries of a [`SharedMap`], by key.
pub struct Iter<'a, K, V> {
    chunks: slice::Iter<'a, Arc<Vec<(K, V)>>>,
    chunk: slice::Iter<'a, (K, V)>,
    left: usize,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.chunk.next() {
                self.left -= 1;
                return Some((key, value));
            }
            self.chunk = self.chunks.next()?.iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), chunk: self.chunk.clone(), left: self.left }
    }
}

impl<'a, K, V> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        map.extend(entries);
        map
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SharedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

impl<K: Ord + Clone, V: Clone, const N: usize> From<[(K, V); N]> for SharedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

// Derives would ask for copies, or defaults, of keys and values.
impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}
impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}
impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}
/// Copies that went apart lately are compared where they did.
impl<K: PartialEq, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let alike = self.chunks.len() == other.chunks.len()
            && self.chunks.iter().zip(&other.chunks).all(|(one, two)| Arc::ptr_eq(one, two) || one == two);
        alike || self.len == other.len && self.iter().eq(other.iter())
    }
}
impl<K: Eq, V: Eq> Eq for SharedMap<K, V> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_as_an_ordered_map_and_copies_stay(
            steps in prop::collection::vec((0u16..300, prop::option::weighted(0.6, any::<u8>())), 0..500),
        ) {
            let (mut map, mut model) = (SharedMap::<u16, u8>::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (number, (key, value)) in steps.into_iter().enumerate() {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.len(), model.len());
                if number % 100 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
            }
            copies.push((map.clone(), model.clone()));
            for (map, model) in &copies {
                prop_assert!(map.iter().eq(model.iter()));
                prop_assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
                prop_assert_eq!(map, &model.iter().map(|(key, value)| (*key, *value)).collect());
            }
            let (from, to) = (Bound::Excluded(77), Bound::Included(222));
            prop_assert!(map.range(50..=200).eq(model.range(50..=200)));
            prop_assert!(map.range((from, to)).eq(model.range((from, to))) && map.range(..).eq(&model));
            prop_assert!(copies.iter().all(|(one, model)| (*one == map) == (model == &copies.last().unwrap().1)));
            for (one, before) in &copies {
                let changes = crate::diff::diff(before, &model);
                let mut expected: BTreeMap<_, _> = changes.added.iter().map(|(key, is)| (*key, (None, Some(*is)))).collect();
                expected.extend(changes.removed.iter().map(|(key, was)| (*key, (Some(*was), None))));
                expected.extend(changes.changed.iter().map(|(key, is)| (*key, (Some(before[key]), Some(*is)))));
                let found = one.changes(&map).map(|(key, was, is)| (*key, (was.copied(), is.copied())));
                prop_assert!(found.eq(expected));
            }
        }
    }

    #[test]
    fn a_change_copies_one_chunk() {
        let mut map: SharedMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let copy = map.clone();
        map.insert(5_000, 1);
        let apart = map.chunks.iter().zip(&copy.chunks).filter(|(one, two)| !Arc::ptr_eq(one, two)).count();
        assert_eq!((apart, copy.get(&5_000), map.get(&5_000)), (1, Some(&5_000), Some(&1)));
    }

    /// Whoever looks at this one is stopped.
    #[derive(Clone)]
    struct Unseen(u32);

    impl PartialEq for Unseen {
        fn eq(&self, other: &Self) -> bool {
            assert!(self.0.abs_diff(5_000) < 128 && other.0 != 1_000_000, "a look at what both share");
            self.0 == other.0
        }
    }

    #[test]
    fn changes_are_found_without_a_look_at_the_rest() {
        let map: SharedMap<u32, Unseen> = (0..10_000).map(|n| (n * 2, Unseen(n))).collect();
        let mut other = map.clone();
        other.insert(10_001, Unseen(5_000));
        other.remove(&9_990);
        let found: Vec<_> =
            map.changes(&other).map(|(key, was, is)| (*key, was.is_some(), is.is_some())).collect();
        assert_eq!(found, [(9_990, true, false), (10_001, false, true)]);
    }

    #[test]
    fn few_chunks_are_left_of_few_entries() {
        let mut map: SharedMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        (0..10_000).filter(|n| n % 100 != 0).for_each(|n| assert_eq!(map.remove(&n), Some(n)));
        assert_eq!(map.len(), 100);
        assert!(map.chunks.len() < 20, "{}", map.chunks.len());
    }
}
