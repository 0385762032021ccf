//! **Decision.** Numbers and times in few letters, as the web page has them.

use std::time::Duration;

/// `0`, `0.4`, `12`, `1.2k`
pub fn number(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What would be rounded to 1000 of a unit is 1 of the next.
    match UNITS.iter().find(|(one, _)| value >= one * 0.9995) {
        Some((one, unit)) => format!("{}{unit}", short(value / one)),
        None if value > 0.0 && value < 0.05 => "<0.1".to_owned(),
        None => short(value),
    }
}

fn short(value: f64) -> String {
    let text = if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") };
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// `1 task`, `3 tasks`
pub fn count(amount: usize, thing: &str) -> String {
    let end = if amount == 1 { "" } else { "s" };
    format!("{amount} {thing}{end}")
}

/// `5 s`, `3 min`, `2 h`
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6_000 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.4, "0.4"),
            (1.0, "1"),
            (9.94, "9.9"),
            (9.96, "10"),
            (123.4, "123"),
            (999.4, "999"),
            (999.6, "1k"),
            (1_240.0, "1.2k"),
            (999_700.0, "1M"),
            (12_345_678.0, "12M"),
            (3e9, "3G"),
            (2.5e13, "25T"),
        ] {
            assert_eq!(number(value), text, "{value}");
            assert!(number(value).len() <= 5);
        }
        assert_eq!((count(1, "node"), count(0, "node")), ("1 node".to_owned(), "0 nodes".to_owned()));
        for (seconds, text) in [(3, "3 s"), (99, "99 s"), (200, "3 min"), (7_300, "2 h")] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }
}
