//! Of how many times, and how they are spread.

use serde::Serialize;

/// Milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Times {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (values.len() as f64 * share).ceil() as usize;
            values.get(place.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: values.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_there() {
        let times = Times::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((times.count, times.p50, times.p99, times.max), (200, 100.0, 198.0, 200.0));
        assert_eq!(Times::of(Vec::new()).max, 0.0);
    }
}
