//! **Fact.** Durations as Docker writes them: `500ms`, `30s`, `1m30s`.

use std::time::Duration;

/// Units, largest first, in nanoseconds.
const UNITS: [(&str, u64); 5] =
    [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)];
const NANOSECOND: (&str, u64) = ("ns", 1);

/// Reads a duration: numbers with units, one after the other. A bare `0` needs none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = |why: &str| Err(format!("invalid duration \"{text}\": {why} (such as 500ms, 30s, 1m30s)"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.starts_with('-') {
        return refuse("it is negative");
    }
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let Ok(number) = number.parse::<f64>() else {
            return refuse("a number is missing");
        };
        if unit.is_empty() {
            return refuse("a unit is missing");
        }
        let unit = if unit == "µs" { "us" } else { unit };
        let Some((_, nanos)) = UNITS.iter().chain([&NANOSECOND]).find(|(name, _)| *name == unit) else {
            return refuse(&format!("\"{unit}\" is no unit"));
        };
        total += number * *nanos as f64;
        rest = tail;
    }
    // A hundred years is more than any timer means.
    if total > 3.2e18 {
        return refuse("it is too long");
    }
    Ok(Duration::from_nanos(total.round() as u64))
}

/// Writes a duration so that [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, nanos) in UNITS.iter().chain([&NANOSECOND]) {
        if rest >= *nanos {
            text.push_str(&format!("{}{unit}", rest / nanos));
            rest %= nanos;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_dockers_durations() {
        for (text, millis) in
            [("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("2h", 7_200_000), ("1m0s", 60_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for text in ["30s", "1m30s", "500ms", "10m", "1h1s", "250us", "1ns"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(format_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("30", "a unit is missing"),
            ("s", "a number is missing"),
            ("", "it is empty"),
            ("-3s", "it is negative"),
            ("3days", "\"days\" is no unit"),
            ("1.2.3s", "a number is missing"),
            ("9999999999h", "it is too long"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
