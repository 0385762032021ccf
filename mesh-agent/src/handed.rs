//! **Effect.** Descriptors that are handed to the agent: by a service manager that has kept them (sd_listen_fds(3)), or by
//! the agent that became this one.
//!
//! They come as bare numbers, and of a bare number nobody can safely say that it is his. So each is copied, as from another
//! process, and the number closed. The manager's variables cannot safely be unset either: the agent becomes itself without
//! them, so that nothing that it starts has them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, Write as _};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// What a manager says of what it hands over.
const VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// The file in which an agent tells the one that it becomes what there is: on its standard input, a line for each descriptor.
const LIST: &str = "mesh-handed";

/// A descriptor that is closed when a program is started.
#[derive(Debug)]
pub struct Handed {
    /// What it is called.
    pub name: String,
    /// The descriptor.
    pub descriptor: OwnedFd,
}

/// Takes what was handed to this process. Once, before the first thread is started.
pub(crate) fn take() -> Vec<Handed> {
    match listed() {
        Ok(Some(list)) => return own(list),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "cannot read what the agent before this one hands over"),
    }
    let given: Vec<_> = match sd_notify::listen_fds_with_names() {
        Ok(given) => given.collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot make out what the service manager hands over: it is left alone");
            return Vec::new();
        }
    };
    if given.is_empty() {
        return Vec::new();
    }
    let handed = own(given);
    if let Err(error) = become_again(&handed) {
        tracing::warn!(%error, "what is started gets variables of the service manager");
    }
    handed
}

/// Starts the agent anew in the same process, and hands these to it. It returns when that fails.
pub(crate) fn become_again(handed: &[Handed]) -> io::Result<()> {
    let mut list = String::new();
    for Handed { name, descriptor } in handed {
        fcntl_setfd(descriptor, FdFlags::empty())?;
        let _ = writeln!(list, "{} {name}", descriptor.as_raw_fd());
    }
    let mut file = File::from(memfd_create(LIST, MemfdFlags::CLOEXEC)?);
    file.write_all(list.as_bytes())?;
    file.rewind()?;
    let mut command = Command::new(std::env::current_exe()?);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    let error = command.args(std::env::args_os().skip(1)).stdin(Stdio::from(file)).exec();
    for Handed { descriptor, .. } in handed {
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    Err(error)
}

/// What the agent says that became this one; nothing, if there was none.
fn listed() -> io::Result<Option<Vec<(RawFd, String)>>> {
    let input = match std::fs::read_link("/proc/self/fd/0") {
        Ok(input) => input,
        // There is no standard input at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let name = input.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    // The kernel shows it as `/memfd:NAME (deleted)`.
    if name.strip_prefix("memfd:").and_then(|rest| rest.split(' ').next()) != Some(LIST) {
        return Ok(None);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let line = |line: &str| {
        let (number, name) = line.split_once(' ')?;
        Some((number.parse().ok()?, name.to_owned()))
    };
    Ok(Some(text.lines().filter_map(line).collect()))
}

/// Makes numbers one's own.
fn own(given: Vec<(RawFd, String)>) -> Vec<Handed> {
    let copied = pidfd_open(getpid(), PidfdFlags::empty()).and_then(|me| {
        let copy = |(number, name)| {
            let descriptor = pidfd_getfd(&me, number, PidfdGetfdFlags::empty())?;
            let _ = nix::unistd::close(number);
            Ok(Handed { name, descriptor })
        };
        given.into_iter().map(copy).collect()
    });
    copied.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot take over what is handed over");
        Vec::new()
    })
}
