//! What was measured, and what can be said of it.

use std::collections::BTreeMap;

use super::load::Metric;
use super::target::Entry;

/// What a number is of.
pub(super) type Key = (Metric, Entry);

/// All numbers.
#[derive(Debug, Default)]
pub(super) struct Samples(BTreeMap<Key, BTreeMap<&'static str, BTreeMap<usize, f64>>>);

impl Samples {
    /// One number of a round.
    pub(super) fn add(
        &mut self,
        metric: Metric,
        entry: Entry,
        target: &'static str,
        round: usize,
        value: f64,
    ) {
        self.0.entry((metric, entry)).or_default().entry(target).or_default().insert(round, value);
    }

    /// What there are numbers of, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.0.keys().copied()
    }

    /// The median, and the distance of the quartiles.
    pub(super) fn median(&self, key: Key, target: &str) -> Option<(f64, f64)> {
        let mut values: Vec<f64> = self.rounds(key, target)?.values().copied().collect();
        let spread = quantile(&mut values, 0.75)? - quantile(&mut values, 0.25)?;
        Some((quantile(&mut values, 0.5)?, spread))
    }

    /// How many times as much one has as another: the median of the rounds' own ratios, for rounds differ more than
    /// what is measured within one.
    pub(super) fn ratio(&self, key: Key, target: &str, to: &str) -> Option<f64> {
        let (these, those) = (self.rounds(key, target)?, self.rounds(key, to)?);
        let pairs = these.iter().filter_map(|(round, value)| Some(value / those.get(round)?));
        quantile(&mut pairs.collect::<Vec<f64>>(), 0.5)
    }

    fn rounds(&self, key: Key, target: &str) -> Option<&BTreeMap<usize, f64>> {
        self.0.get(&key)?.get(target)
    }
}

/// The value at that share of the way from the least to the greatest.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = values.len().checked_sub(1)? as f64 * share;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = (Metric::Gbps, Entry::Vip);

    fn samples(target: &'static str, values: &[f64], into: &mut Samples) {
        for (round, value) in values.iter().enumerate() {
            into.add(KEY.0, KEY.1, target, round, *value);
        }
    }

    #[test]
    fn the_ratio_is_that_of_rounds_and_not_of_medians() {
        let mut all = Samples::default();
        // The machine is twice as fast in every other round, and one is always half of the other.
        samples("direct", &[10.0, 20.0, 10.0, 20.0, 10.0], &mut all);
        samples("mesh", &[5.0, 10.0, 5.0, 10.0, 5.0], &mut all);
        assert_eq!(all.ratio(KEY, "mesh", "direct"), Some(0.5));
        assert_eq!(all.ratio(KEY, "mesh", "nobody"), None);
        assert_eq!(all.median(KEY, "direct"), Some((10.0, 10.0)));
    }

    #[test]
    fn a_quantile_lies_between_two_values() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&mut values, 0.5), Some(2.5));
        assert_eq!(quantile(&mut values, 0.75), Some(3.25));
        assert_eq!(quantile(&mut values, 1.0), Some(4.0));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
