//! **Effect.** Kernel settings under `/proc/sys/net` that forwarding needs.
//!
//! They belong to the namespace of the thread that opens the file. Each is read before it is written, so that
//! a second round changes nothing and a read-only `/proc/sys` that is right already is no error. A file that
//! does not exist is none either: the kernel lacks the family.

use std::io;
use std::path::{Path, PathBuf};

use crate::netns::Netns;
use crate::plane::Drift;

const ROOT: &str = "/proc/sys/net";

/// A setting and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// Under `/proc/sys/net`.
    pub(super) name: String,
    pub(super) value: &'static str,
}

impl Setting {
    fn new(name: impl Into<String>, value: &'static str) -> Self {
        Self { name: name.into(), value }
    }
}

/// What the host's end of every veth, and the tunnel device, need.
pub(super) fn of_device(device: &str, v6: bool) -> Vec<Setting> {
    let mut settings = vec![
        // Packets to 127/8 may come in by it: a port published on a node's loopback address.
        Setting::new(format!("ipv4/conf/{device}/route_localnet"), "1"),
        // A source must be reachable, but not by this device: replies may take another way.
        Setting::new(format!("ipv4/conf/{device}/rp_filter"), "2"),
        // Nobody advertises routers here, and nobody may.
        Setting::new(format!("ipv6/conf/{device}/accept_ra"), "0"),
        // No link-local address: neighbours are permanent, so there is nothing to announce.
        Setting::new(format!("ipv6/conf/{device}/addr_gen_mode"), "1"),
    ];
    if v6 {
        settings.push(Setting::new(format!("ipv6/conf/{device}/disable_ipv6"), "0"));
    }
    settings
}

/// What a task's end needs when it has IPv6, which container engines often turn off.
pub(super) fn of_inside(device: &str) -> Vec<Setting> {
    vec![Setting::new(format!("ipv6/conf/{device}/disable_ipv6"), "0")]
}

/// What the node needs.
fn of_node() -> Vec<Setting> {
    vec![Setting::new("ipv4/ip_forward", "1"), Setting::new("ipv6/conf/all/forwarding", "1")]
}

/// What the loopback device needs where programs hand packets to the node's own processes by it: answers come
/// from addresses of the node's own, and for `127.0.0.1`.
pub(crate) fn apply_loopback(drift: Option<&Drift>) -> Vec<(String, Result<(), String>)> {
    let settings =
        [Setting::new("ipv4/conf/lo/accept_local", "1"), Setting::new("ipv4/conf/lo/route_localnet", "1")];
    settings.iter().filter_map(|setting| set(Path::new(ROOT), setting, drift)).collect()
}

/// Makes the settings, inside `netns`. What happened to each, by name; nothing for those that were right. With
/// somewhere to note what is not right, nothing is written.
pub(super) fn apply(
    netns: &Netns,
    settings: &[Setting],
    drift: Option<&Drift>,
) -> Vec<(String, Result<(), String>)> {
    let done =
        netns.run(|| settings.iter().filter_map(|setting| set(Path::new(ROOT), setting, drift)).collect());
    done.unwrap_or_else(|error| vec![("sysctl".to_owned(), Err(error.to_string()))])
}

/// Makes the node forward.
///
/// A node that forwards stops listening to router advertisements (`accept_ra=1`, kernel
/// Documentation/networking/ip-sysctl.rst), and would lose its own default route: uplinks that listened go on
/// (`accept_ra=2`).
pub(super) fn apply_node(netns: &Netns, drift: Option<&Drift>) -> Vec<(String, Result<(), String>)> {
    let settings = netns.run(|| {
        let mut settings = of_node();
        if read(&Path::new(ROOT).join("ipv6/conf/all/forwarding")).is_ok_and(|value| value == "0") {
            // Before forwarding: turning it on forgets the routers of all that do not have 2 yet.
            settings.splice(0..0, listening_uplinks());
        }
        settings
    });
    match settings {
        Ok(settings) => apply(netns, &settings, drift),
        Err(error) => vec![("sysctl".to_owned(), Err(error.to_string()))],
    }
}

fn listening_uplinks() -> Vec<Setting> {
    let devices = std::fs::read_dir(Path::new(ROOT).join("ipv6/conf")).into_iter().flatten().flatten();
    let names = devices.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name != "all" && name != "lo")
        .map(|name| format!("ipv6/conf/{name}/accept_ra"))
        .filter(|name| read(&Path::new(ROOT).join(name)).is_ok_and(|value| value == "1"))
        .map(|name| Setting::new(name, "2"))
        .collect()
}

fn set(root: &Path, setting: &Setting, drift: Option<&Drift>) -> Option<(String, Result<(), String>)> {
    let path: PathBuf = root.join(&setting.name);
    let object = format!("sysctl net/{}", setting.name);
    let failed = |verb: &str, error: io::Error| {
        let message =
            format!("cannot {verb} {}: {error}; set it to {} yourself", path.display(), setting.value);
        Some((object.clone(), Err(message)))
    };
    match read(&path) {
        Ok(value) if value == setting.value => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => failed("read", error),
        Ok(value) => match drift {
            Some(drift) => {
                drift.note(object, format!("is {value}, planned {}", setting.value));
                None
            }
            None => match std::fs::write(&path, setting.value) {
                Ok(()) => Some((object, Ok(()))),
                Err(error) => failed("write", error),
            },
        },
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_written_once_and_a_missing_file_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("x"), "0\n").unwrap();
        let setting = Setting::new("x", "1");
        assert_eq!(set(root.path(), &setting, None), Some(("sysctl net/x".to_owned(), Ok(()))));
        assert_eq!(set(root.path(), &setting, None), None);
        assert_eq!(set(root.path(), &Setting::new("missing", "1"), None), None);
    }

    #[test]
    fn a_setting_that_cannot_be_written_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("x")).unwrap();
        let (_, result) = set(root.path(), &Setting::new("x", "1"), None).unwrap();
        assert!(result.unwrap_err().contains("set it to 1 yourself"));
    }
}
