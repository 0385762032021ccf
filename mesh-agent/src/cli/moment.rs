//! **Decision.** Moments as users write them.

use jiff::tz::TimeZone;

use crate::api::types::{parse_duration, parse_moment};
use crate::events::now;

/// A moment, nanoseconds since 1970: as such in seconds, as RFC 3339 has it, or how long ago.
pub(super) fn moment(text: &str) -> Result<u64, String> {
    if let Some(moment) = parse_moment(text) {
        return Ok(moment);
    }
    if let Ok(ago) = parse_duration(text) {
        return Ok(now().saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
    }
    // Without a zone it is UTC: so are all times here.
    let civil =
        || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    let moment = text.parse().ok().or_else(civil);
    moment.and_then(|moment: jiff::Timestamp| u64::try_from(moment.as_nanosecond()).ok()).ok_or_else(|| {
        "it is no time: '10m' ago, '2026-11-29T12:00:00Z' and seconds since 1970 are".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_docker_does() {
        let at = 1_764_417_600 * 1_000_000_000;
        for text in [
            "1764417600",
            "1764417600.0",
            "2025-11-29T12:00:00Z",
            "2025-11-29T12:00:00",
            "2025-11-29T13:00:00+01:00",
        ] {
            assert_eq!(moment(text), Ok(at), "{text}");
        }
        assert_eq!(moment("2025-11-29"), Ok(at - 12 * 3_600 * 1_000_000_000));
        let then = moment("1h30m").unwrap();
        let ago = now() - then;
        assert!((5_400 * 1_000_000_000..5_500 * 1_000_000_000).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "-5m", "2025-13-01", "12:00", "1969-12-31T00:00:00Z"] {
            assert!(moment(wrong).unwrap_err().contains("no time"), "{wrong}");
        }
    }
}
