//! **Decision.** How long certificates are good, when they are renewed, and what a wrong clock means.

use std::time::Duration;

use crate::model::Timestamp;

/// How long a node's certificate is good.
pub const LIFE: Duration = Duration::from_hours(30 * 24);
/// The shortest life that leaves time to renew.
pub const SHORTEST: Duration = Duration::from_secs(10);
/// How long the certificate of an authority is good.
pub const AUTHORITY_LIFE: Duration = Duration::from_hours(20 * 365 * 24);
/// By how much a certificate begins before it is issued: clocks differ (swarmkit's CertBackdate).
pub const BACKDATE: Duration = Duration::from_hours(1);
/// A node asks for its next certificate when a fifth of its life is left at the latest; with so much of it left, it has
/// asked in vain. In hundredths: the rest is for what asking takes.
const OVERDUE: u64 = 15;
/// The shortest and the longest pause between attempts to renew.
const PAUSES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_mins(10));

/// From when to when a certificate is good, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: Timestamp,
    /// The last one.
    pub until: Timestamp,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Validity {
    /// Of a certificate that is issued now; a life shorter than [`SHORTEST`] is as long as that.
    pub fn begin(now: Timestamp, life: Duration) -> Self {
        Self {
            from: now.saturating_sub(millis(BACKDATE)),
            until: now.saturating_add(millis(life.max(SHORTEST))),
        }
    }

    /// When to renew: somewhere from 50 to 80 % of its life, so that nodes that joined together do not come together.
    /// `random` is any number.
    pub fn renewal(&self, random: u64) -> Timestamp {
        let issued = self.issued();
        let life = self.until - issued;
        let share = 500 + random % 301;
        issued + (u128::from(life) * u128::from(share) / 1000) as u64
    }

    /// Whether it is good by a clock; `Err` says in words what is wrong, and what to do. `whose` is what holds it.
    pub fn check(&self, now: Timestamp, whose: &str) -> Result<(), String> {
        if now < self.from {
            return Err(format!(
                "the certificate of {whose} begins {} from now by this machine's clock: set the clock",
                span(self.from - now)
            ));
        }
        if now > self.until {
            return Err(format!(
                "the certificate of {whose} ended {} ago by this machine's clock: set the clock if it is wrong; if it \
                 is right, let the node leave the mesh and join again",
                span(now - self.until)
            ));
        }
        Ok(())
    }

    /// When it was issued: it begins earlier than that.
    pub fn issued(&self) -> Timestamp {
        self.from.saturating_add(millis(BACKDATE)).min(self.until)
    }

    /// What to tell people of a certificate that should have been renewed and has not been: less than
    /// [`OVERDUE`] hundredths of its life are left.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        if now > self.until {
            let ago = span(now - self.until);
            return Some(format!("this node's certificate ended {ago} ago and could not be renewed"));
        }
        let left = self.until - now;
        let life = self.until - self.issued();
        let late = u128::from(left) * 100 < u128::from(life) * u128::from(OVERDUE);
        late.then(|| format!("this node's certificate ends in {} and could not be renewed yet", span(left)))
    }
}

/// How long to wait after a number of attempts in a row that failed: longer each time, and never the same for all.
pub fn pause(failures: u32, random: u64) -> Duration {
    let (shortest, longest) = PAUSES;
    let most = (shortest * 2_u32.pow(failures.min(10))).min(longest);
    most / 2 + Duration::from_millis(random % (millis(most / 2) + 1))
}

/// A length of time in words, in its largest unit.
pub fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn renewal_is_in_the_second_half_and_before_four_fifths(now in 0..1u64 << 50, life in 0..1u64 << 32, random: u64) {
            let validity = Validity::begin(now.max(millis(BACKDATE)), Duration::from_secs(life));
            let now = now.max(millis(BACKDATE));
            let life = validity.until - now;
            let at = validity.renewal(random) - now;
            prop_assert!(at >= life / 2 && at <= life / 10 * 8 + 8, "{} of {}", at, life);
        }

        #[test]
        fn any_two_times_make_a_decision(from: u64, until: u64, now: u64, random: u64) {
            let validity = Validity { from, until };
            let _ = (validity.renewal(random), validity.check(now, "n1"), validity.warning(now));
        }

        #[test]
        fn pauses_grow_and_end(failures: u32, random: u64) {
            prop_assert!(pause(failures, random) <= PAUSES.1 && pause(failures, random) >= PAUSES.0 / 2);
        }
    }

    #[test]
    fn a_wrong_clock_is_told_from_an_old_certificate() {
        let now = 1_800_000_000_000;
        let validity = Validity::begin(now, LIFE);
        validity.check(now, "n1").unwrap();
        validity.check(now - 3_600_000, "n1").unwrap();
        let early = validity.check(now - 4 * 3_600_000, "n1").unwrap_err();
        assert!(
            early.contains("of n1 begins 3 hours from now") && early.contains("set the clock"),
            "{early}"
        );
        let late = validity.check(now + 32 * 86_400_000, "n1").unwrap_err();
        assert!(late.contains("of n1 ended 2 days ago") && late.contains("join again"), "{late}");
        assert_eq!(validity.warning(now), None);
        assert!(validity.warning(now + 29 * 86_400_000).unwrap().contains("ends in 1 day "));
        assert!(validity.warning(now + 31 * 86_400_000).unwrap().contains("ended 1 day ago"));
    }

    proptest! {
        /// However short it is: it begins an hour before it is issued, and that is no part of its life.
        #[test]
        fn who_renews_in_time_is_not_warned(life in 10_000..1u64 << 40, random: u64) {
            let now = 1_800_000_000_000;
            let validity = Validity::begin(now, Duration::from_millis(life));
            prop_assert_eq!(validity.warning(validity.renewal(random)), None);
            prop_assert!(validity.warning(now + life * 86 / 100 + 1).is_some());
        }
    }

    #[test]
    fn a_short_life_is_ten_seconds() {
        assert_eq!(
            Validity::begin(7_200_000, Duration::ZERO),
            Validity { from: 3_600_000, until: 7_210_000 }
        );
    }
}
