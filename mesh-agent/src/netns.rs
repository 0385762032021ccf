//! **Effect.** Network namespaces of tasks and nodes: found, checked, entered.
//!
//! A namespace belongs to a thread (setns(2)), so work inside one is done by a fresh thread that ends with it:
//! no thread of the runtime ever changes its namespace, and nothing forks. A socket stays in the namespace in
//! which it was made, so a netlink connection from inside can be used from anywhere.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::model::Origin;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rtnetlink::Handle;
use rtnetlink::sys::AsyncSocket;

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Nobody has this number.
    #[error("process {pid} has ended, and its network namespace with it")]
    Ended {
        /// The process.
        pid: u32,
    },
    /// Somebody else has this number now.
    #[error(
        "process {pid} has ended; its number belongs to another process now (started at {found}, not {wanted})"
    )]
    Reused {
        /// The process.
        pid: u32,
        /// The registered start time.
        wanted: u64,
        /// The start time that the process of this number has.
        found: u64,
    },
    /// Some other kind of file.
    #[error("{} is not a network namespace; name a file such as /run/netns/NAME or /proc/PID/ns/net", .path.display())]
    NotOne {
        /// The file.
        path: PathBuf,
    },
    /// The file is missing or closed to us.
    #[error("cannot open the network namespace {}: {source}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel said no.
    #[error("cannot enter {netns}: {source}; the agent needs CAP_SYS_ADMIN")]
    Enter {
        /// The namespace.
        netns: String,
        /// Why.
        source: io::Error,
    },
    /// No thread or socket to work with.
    #[error("cannot work in {netns}: {source}")]
    Work {
        /// The namespace.
        netns: String,
        /// Why.
        source: io::Error,
    },
}

impl NetnsError {
    /// Whether the namespace is known to be there no more.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Ended { .. } | Self::Reused { .. } | Self::NotOne { .. } => true,
            Self::Open { source, .. } => is_gone(source),
            Self::Enter { .. } | Self::Work { .. } => false,
        }
    }
}

/// A network namespace, kept alive while this is held.
#[derive(Debug)]
pub struct Netns {
    file: File,
    /// Device and inode of the namespace's file: the same for every way to it.
    identity: (u64, u64),
    name: String,
}

impl Netns {
    /// The one of the calling thread.
    pub fn own() -> Result<Self, NetnsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"), "the agent's own network namespace".to_owned())
    }

    /// The one of a process, which must still be the one that started at `start`.
    pub fn of_process(pid: u32, start: u64) -> Result<Self, NetnsError> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        // Opened before the check: if the start time is right afterwards, it was right when this was opened.
        let opened = Self::open(&path, format!("the network namespace of process {pid}"));
        match start_of(pid) {
            Ok(found) if found == start => {}
            Ok(found) => {
                return Err(NetnsError::Reused { pid, wanted: start, found });
            }
            Err(error) if is_gone(&error) => return Err(NetnsError::Ended { pid }),
            Err(source) => return Err(NetnsError::Open { path, source }),
        }
        match opened {
            // A process that waits to be reaped has a number and a start time but no namespaces.
            Err(NetnsError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(NetnsError::Ended { pid })
            }
            other => other,
        }
    }

    /// The one that is bound to a path.
    pub fn at_path(path: &Path) -> Result<Self, NetnsError> {
        let netns = Self::open(path, path.display().to_string())?;
        // The file system has namespaces of all kinds; only setns(2) tells them apart.
        match netns.run(|| ()) {
            Err(NetnsError::Enter { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
                Err(NetnsError::NotOne { path: path.to_owned() })
            }
            Err(error) => Err(error),
            Ok(()) => Ok(netns),
        }
    }

    /// The one in which a task lives.
    pub fn of_origin(origin: &Origin) -> Result<Self, NetnsError> {
        match origin {
            Origin::Process { pid, start, supervised: _ } => Self::of_process(*pid, *start),
            Origin::Netns { path } => Self::at_path(path),
        }
    }

    fn open(path: &Path, name: String) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Open { path: path.to_owned(), source };
        // A path may name anything, even a pipe that waits for its writer.
        let options = OFlag::O_NONBLOCK.bits();
        let file = File::options().read(true).custom_flags(options).open(path).map_err(failed)?;
        if fstatfs(&file).map_err(|errno| failed(errno.into()))?.filesystem_type() != NSFS_MAGIC {
            return Err(NetnsError::NotOne { path: path.to_owned() });
        }
        let metadata = file.metadata().map_err(failed)?;
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()), name })
    }

    /// Whether a path leads to it; any path may be asked about.
    pub fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
    }

    /// Its file, which keeps it alive as well.
    pub fn into_file(self) -> Arc<File> {
        Arc::new(self.file)
    }

    /// Whether both are the same namespace, however they were found.
    pub fn is(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Does `work` inside, on a thread of its own, and waits for it: for work that does not wait itself.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("mesh-netns".to_owned()).spawn_scoped(scope, || {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                });
            let thread = thread.map_err(|source| self.broken(source))?;
            match thread.join() {
                Ok(result) => result.map_err(|errno: nix::Error| NetnsError::Enter {
                    netns: self.name.clone(),
                    source: errno.into(),
                }),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A netlink connection whose socket is inside. It ends with its last handle; needs a tokio runtime.
    pub fn connect(&self) -> Result<Handle, NetnsError> {
        let runtime = tokio::runtime::Handle::current();
        let opened = self.run(|| {
            // The socket registers with the runtime that is entered.
            let _entered = runtime.enter();
            let (mut connection, handle, _) = rtnetlink::new_connection()?;
            let socket = connection.socket_mut().socket_mut();
            // The kernel's own words with each error, and dumps that it filters itself. Older kernels lack
            // them, and nothing depends on them.
            let _ = socket.set_ext_ack(true);
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_netlink_get_strict_chk(true);
            Ok((connection, handle))
        })?;
        let (connection, handle) = opened.map_err(|source| self.broken(source))?;
        #[expect(clippy::disallowed_methods, reason = "it ends by itself, with its last handle")]
        tokio::spawn(connection);
        Ok(handle)
    }

    fn broken(&self, source: io::Error) -> NetnsError {
        NetnsError::Work { netns: self.name.clone(), source }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether an error of the file system says that something is not there, and not only that we cannot look.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// When a process started, in clock ticks since boot: with its number, what tells it from all others.
pub fn start_of(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_start(&stat)
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as in proc(5): {stat}")))
}

/// Field 22 of proc(5) stat. The name, field 2, is in parentheses and may have spaces and parentheses itself.
fn parse_start(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 424242 20 21";
        assert_eq!(parse_start(&format!("7 (sleep) {rest}")), Some(424_242));
        assert_eq!(parse_start(&format!("7 (a) b (c)) {rest}")), Some(424_242));
        assert_eq!(parse_start("7 (sleep) S 1"), None);
        assert_eq!(parse_start(""), None);
    }

    #[test]
    fn this_process_has_a_start() {
        assert!(start_of(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn an_ordinary_file_is_no_namespace() {
        let error = Netns::at_path(Path::new("/etc/hostname")).unwrap_err();
        assert!(error.to_string().contains("/etc/hostname is not a network namespace"), "{error}");
    }

    #[test]
    fn a_process_that_is_not_there_has_none() {
        let error = Netns::of_process(u32::MAX >> 2, 1).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
    }
}
