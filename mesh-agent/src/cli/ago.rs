//! **Fact.** How long ago something was, in Docker's words.

/// `5 minutes`, `About an hour`
pub(super) fn human(seconds: i64) -> String {
    let (minute, hour, day) = (60, 3600, 86_400);
    match seconds.max(0) {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < minute => format!("{s} seconds"),
        s if s < 2 * minute => "About a minute".to_owned(),
        s if s < hour => format!("{} minutes", s / minute),
        s if s < 2 * hour => "About an hour".to_owned(),
        s if s < 2 * day => format!("{} hours", s / hour),
        s if s < 14 * day => format!("{} days", s / day),
        s if s < 60 * day => format!("{} weeks", s / day / 7),
        s if s < 730 * day => format!("{} months", s / day / 30),
        s => format!("{} years", s / day / 365),
    }
}

/// `5 minutes ago`; what is no RFC 3339 time is shown as it is.
pub(super) fn ago(moment: &str) -> String {
    match moment.parse::<jiff::Timestamp>() {
        Ok(then) => {
            let seconds = jiff::Timestamp::now().as_second() - then.as_second();
            format!("{} ago", lower_first(&human(seconds)))
        }
        Err(_) => moment.to_owned(),
    }
}

fn lower_first(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_lowercase().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_as_docker_does() {
        for (seconds, text) in [
            (-5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (300, "5 minutes"),
            (3700, "About an hour"),
            (7300, "2 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (90 * 86_400, "3 months"),
            (800 * 86_400, "2 years"),
        ] {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(ago("2000-13-01"), "2000-13-01");
        assert_eq!(ago(&jiff::Timestamp::now().to_string()), "less than a second ago");
    }
}
