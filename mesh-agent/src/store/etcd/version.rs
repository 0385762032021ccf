//! **Decision.** Which versions of etcd are good enough.

/// What is wrong with a version of etcd, and what to do.
pub(crate) fn check(version: &str) -> Result<(), String> {
    let numbers: Vec<Option<u32>> =
        version.split(['.', '-', '+']).take(3).map(|part| part.parse().ok()).collect();
    let [Some(major), Some(minor), Some(patch)] = numbers[..] else {
        return Err(format!("it says that it is version '{version}', which etcd never was"));
    };
    match (major, minor, patch) {
        (3, 5, 0..=2) => {
            Err(format!("etcd {version} may lose data when it crashes: upgrade it to 3.5.3 or later"))
        }
        (3, 4.., _) => Ok(()),
        (0..=3, ..) => Err(format!("etcd {version} is too old: upgrade it to 3.4 or later")),
        _ => Err(format!("etcd {version} is newer than this agent knows: upgrade the agent, or use etcd 3")),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn versions_are_known_or_refused_with_the_reason() {
        for good in ["3.4.0", "3.4.23", "3.5.3", "3.5.33", "3.6.14", "3.7.1", "3.6.0-rc.1"] {
            assert_eq!(check(good), Ok(()));
        }
        for (bad, why) in [
            ("2.3.8", "too old"),
            ("3.3.27", "too old"),
            ("3.5.0", "may lose data"),
            ("3.5.2", "may lose data"),
            ("4.0.0", "newer"),
            ("", "never was"),
            ("3.x.1", "never was"),
            ("nginx", "never was"),
        ] {
            let message = check(bad).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
    }
}
