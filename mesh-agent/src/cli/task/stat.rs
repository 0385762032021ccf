//! **Fact.** When a process started: what tells it from a later one with the same number.

use anyhow::Context;

/// Clock ticks since boot, of `self` or a process number.
pub(super) fn start_time(process: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&stat).with_context(|| format!("cannot make sense of {path}"))
}

/// Field 22 of proc(5) stat. The name in field 2 may hold spaces and parentheses.
fn parse(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_confuse_it() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse(&format!("42 (a) b ) c) {rest}")), Some(4711));
        assert_eq!(parse("42 (x) S 1"), None);
        assert!(start_time("self").unwrap() > 0);
        assert!(start_time("0").is_err());
    }
}
