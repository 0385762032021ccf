//! **Decision.** What is asked of a service's health check.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Refusal;
use crate::model::{HealthCheck, Probe};

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_mins(10);
const COUNTS: RangeInclusive<u32> = 1..=100;
const LONGEST_START: Duration = Duration::from_hours(24);

/// What to make of a health check; what is not named stays, or is as by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthWish {
    /// How tasks are asked; none inside: not at all.
    pub probe: Option<Option<Probe>>,
    /// See [`HealthCheck::interval`].
    pub interval: Option<Duration>,
    /// See [`HealthCheck::timeout`].
    pub timeout: Option<Duration>,
    /// See [`HealthCheck::retries`].
    pub retries: Option<u32>,
    /// See [`HealthCheck::rise`].
    pub rise: Option<u32>,
    /// See [`HealthCheck::start_period`].
    pub start_period: Option<Duration>,
    /// See [`HealthCheck::start_interval`].
    pub start_interval: Option<Duration>,
    /// See [`HealthCheck::panic`].
    pub panic: Option<u8>,
}

impl HealthWish {
    /// The check as it is to be.
    pub(super) fn apply(self, old: Option<&HealthCheck>) -> Result<Option<HealthCheck>, Refusal> {
        let nothing = self == Self::default();
        let probe = match self.probe {
            Some(None) if (Self { probe: None, ..self }) != Self::default() => {
                return invalid(
                    "there is to be no health check, and it is to have times or counts: choose one",
                );
            }
            Some(None) => return Ok(None),
            Some(Some(probe)) => Some(probe),
            None => None,
        };
        let mut check = match (old, probe) {
            (None, None) if nothing => return Ok(None),
            (None, None) => {
                return invalid("there is no health check to have times or counts: say what is checked, too");
            }
            (None, Some(probe)) => HealthCheck::new(probe),
            (Some(old), None) => old.clone(),
            (Some(old), Some(probe)) => HealthCheck { probe, ..old.clone() },
        };
        check.interval = self.interval.unwrap_or(check.interval);
        check.timeout = self.timeout.unwrap_or(check.timeout);
        check.retries = self.retries.unwrap_or(check.retries);
        check.rise = self.rise.unwrap_or(check.rise);
        check.start_period = self.start_period.unwrap_or(check.start_period);
        check.start_interval = self.start_interval.unwrap_or(check.start_interval);
        check.panic = self.panic.unwrap_or(check.panic);
        if nothing || old == Some(&check) {
            return Ok(Some(check));
        }
        verify(&check)?;
        Ok(Some(check))
    }
}

fn verify(check: &HealthCheck) -> Result<(), Refusal> {
    match &check.probe {
        Probe::Tcp { port: 0 } | Probe::Http { port: 0, .. } => {
            return invalid("the port of a health check must be between 1 and 65535");
        }
        Probe::Http { path, .. } if !path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b >= 127) => {
            return invalid(format!(
                "invalid page of a health check ({path}): it begins with a slash, and has no spaces and nothing but \
                 ASCII; escape what is else (%20)"
            ));
        }
        Probe::Shell { command } if command.trim().is_empty() || command.contains('\0') => {
            return invalid("the command of a health check must not be empty, and has no zero bytes");
        }
        Probe::Tcp { .. } | Probe::Http { .. } | Probe::Shell { .. } => {}
    }
    for (name, value, range) in [
        ("interval", check.interval, INTERVALS),
        ("start interval", check.start_interval, INTERVALS),
        ("timeout", check.timeout, TIMEOUTS),
        ("start period", check.start_period, Duration::ZERO..=LONGEST_START),
    ] {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            return invalid(format!(
                "invalid {name} of a health check ({value:?}): must be between {least:?} and {most:?}"
            ));
        }
    }
    for (name, value) in [("retries", check.retries), ("rise", check.rise)] {
        if !COUNTS.contains(&value) {
            return invalid(format!("invalid {name} of a health check ({value}): must be between 1 and 100"));
        }
    }
    if check.panic > 100 {
        return invalid(format!("invalid panic threshold ({}): must be between 0 and 100 %", check.panic));
    }
    Ok(())
}

fn invalid<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid(why.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Probe = Probe::Tcp { port: 80 };

    fn wish() -> HealthWish {
        HealthWish::default()
    }

    #[test]
    fn what_is_not_named_stays() {
        assert_eq!(wish().apply(None).unwrap(), None);
        let made =
            HealthWish { probe: Some(Some(TCP)), retries: Some(2), ..wish() }.apply(None).unwrap().unwrap();
        assert_eq!(made, HealthCheck { retries: 2, ..HealthCheck::new(TCP) });
        assert_eq!(wish().apply(Some(&made)).unwrap().as_ref(), Some(&made));
        let other = HealthWish { rise: Some(3), ..wish() }.apply(Some(&made)).unwrap().unwrap();
        assert_eq!(other, HealthCheck { rise: 3, ..made.clone() });
        assert_eq!(HealthWish { probe: Some(None), ..wish() }.apply(Some(&made)).unwrap(), None);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let http = |path: &str| Some(Some(Probe::Http { port: 80, path: path.to_owned(), tls: false }));
        let shell = |command: &str| Some(Some(Probe::Shell { command: command.to_owned() }));
        let tcp = || HealthWish { probe: Some(Some(TCP)), ..wish() };
        for (wish, expected) in [
            (HealthWish { rise: Some(2), ..wish() }, "say what is checked"),
            (HealthWish { probe: Some(None), rise: Some(2), ..wish() }, "choose one"),
            (HealthWish { probe: Some(Some(Probe::Tcp { port: 0 })), ..wish() }, "between 1 and 65535"),
            (HealthWish { probe: http("x"), ..wish() }, "begins with a slash"),
            (HealthWish { probe: http("/a b"), ..wish() }, "begins with a slash"),
            (HealthWish { probe: shell(" "), ..wish() }, "must not be empty"),
            (HealthWish { interval: Some(Duration::ZERO), ..tcp() }, "interval"),
            (HealthWish { timeout: Some(Duration::from_hours(1)), ..tcp() }, "timeout"),
            (HealthWish { retries: Some(0), ..tcp() }, "retries"),
            (HealthWish { start_period: Some(Duration::MAX), ..tcp() }, "start period"),
        ] {
            let message = wish.clone().apply(None).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\n  lacks\n{expected}");
        }
    }
}
