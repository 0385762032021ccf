//! **Effect.** The socket that the API is served on.
//!
//! It appears at its path with its final owner and permissions, in one step: it is made in a directory that
//! only we can enter, and linked into place. A socket that another agent answers on is never taken away.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::Group;
use tokio::net::UnixListener;

use crate::control::random;

/// Whoever is in the group may use the API.
const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o755;

/// Makes the socket. Must be called inside a Tokio runtime.
pub fn bind(path: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
        // The mode above was subject to the umask.
        fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE))?;
    }
    let gid = group.map(find_group).transpose()?;
    let private = Private::new(directory)?;
    clear(path, &private)?;
    let made = private.path.join("new");
    let listener = UnixListener::bind(&made)?;
    chown(&made, None, gid)?;
    fs::set_permissions(&made, fs::Permissions::from_mode(SOCKET_MODE))?;
    // Unlike a rename, a link never replaces what someone else has put there meanwhile.
    fs::hard_link(&made, path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => in_use(path),
        _ => error,
    })?;
    Ok(listener)
}

/// Takes away what a dead agent left, and nothing else.
fn clear(path: &Path, private: &Private) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let why = format!("{} is there and is no socket; remove it, or choose another path", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    if answers(path)? {
        return Err(in_use(path));
    }
    // Another agent may start at this very moment: what was moved away is looked at once more.
    let old = private.path.join("old");
    match fs::rename(path, &old) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        moved => moved?,
    }
    if answers(&old)? {
        fs::hard_link(&old, path)?;
        return Err(in_use(path));
    }
    Ok(())
}

fn answers(path: &Path) -> io::Result<bool> {
    match UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn in_use(path: &Path) -> io::Error {
    let why = format!("another mesh agent answers at {} already", path.display());
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

fn find_group(name: &str) -> io::Result<u32> {
    let group = Group::from_name(name)?;
    let missing = || {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no group '{name}' (groupadd --system {name})"),
        )
    };
    Ok(group.ok_or_else(missing)?.gid.as_raw())
}

/// A directory that only we can enter, gone with its content when it is dropped.
struct Private {
    path: std::path::PathBuf,
}

impl Private {
    fn new(beside: &Path) -> io::Result<Self> {
        let path = beside.join(format!(".mesh-{:016x}", u128::from_le_bytes(random()) as u64));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // What is left is an empty name in a directory of our own; nothing depends on it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn appears_with_its_permissions_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/mesh.sock");
        let listener = bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert!(answers(&path).unwrap());
        drop(listener);
    }

    #[tokio::test]
    async fn a_stale_socket_goes_and_a_live_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.sock");
        drop(bind(&path, None).unwrap());
        let live = bind(&path, None).unwrap();
        let error = bind(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("another mesh agent answers"), "{error}");
        assert!(answers(&path).unwrap());
        drop(live);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.sock");
        fs::write(&path, "precious").unwrap();
        assert!(bind(&path, None).unwrap_err().to_string().contains("is no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let error = bind(&dir.path().join("other.sock"), Some("no-such-group-here")).unwrap_err();
        assert!(error.to_string().contains("no group 'no-such-group-here'"), "{error}");
    }
}
