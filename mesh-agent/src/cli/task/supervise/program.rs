//! **Fact.** Whether a command can be executed, and how it ended, in a shell's numbers.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::anyhow;

use crate::cli::task::run::{Failure, MESH_FAILED, NOT_EXECUTABLE, NOT_FOUND};

/// Looks before anything is done: a task that cannot start should not come and go.
pub(in crate::cli::task) fn check(command: &[OsString]) -> Result<(), Failure> {
    let name = command
        .first()
        .ok_or_else(|| Failure { code: MESH_FAILED, error: anyhow!("there is no command") })?;
    find(name, std::env::var_os("PATH").as_deref().unwrap_or_default())
}

/// As execvp(3) looks: in the path, unless the name has a slash.
fn find(name: &OsStr, path: &OsStr) -> Result<(), Failure> {
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![name.into()]
    } else {
        std::env::split_paths(path).map(|directory| directory.join(name)).collect()
    };
    let there: Vec<_> = candidates.iter().filter(|candidate| candidate.exists()).collect();
    if there.iter().any(|candidate| executable(candidate)) {
        return Ok(());
    }
    match there.first() {
        Some(file) => Err(Failure {
            code: NOT_EXECUTABLE,
            error: anyhow!("cannot run {}: permission denied", file.display()),
        }),
        None => Err(Failure {
            code: NOT_FOUND,
            error: anyhow!("cannot run {}: command not found", name.display()),
        }),
    }
}

fn executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// What to exit with when a command could not be executed.
pub(in crate::cli::task) fn exit_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// A command's own code, or 128 and the signal that ended it.
pub(super) fn status_code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(MESH_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_looked_for_as_a_shell_does() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data"), "x").unwrap();
        let path = std::env::join_paths([dir.path(), Path::new("/bin")]).unwrap();
        let code = |name: &str| find(OsStr::new(name), &path).err().map(|failure| failure.code);
        assert_eq!(code("sh"), None);
        assert_eq!(code("/bin/sh"), None);
        assert_eq!(code("no-such-command"), Some(NOT_FOUND));
        assert_eq!(code("/no/such/command"), Some(NOT_FOUND));
        assert_eq!(code("data"), Some(NOT_EXECUTABLE));
        assert_eq!(code(dir.path().to_str().unwrap()), Some(NOT_EXECUTABLE));
    }

    #[test]
    fn ends_have_a_shells_numbers() {
        assert_eq!(status_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(status_code(ExitStatus::from_raw(15)), 143);
        assert_eq!(exit_code(&io::Error::from(io::ErrorKind::NotFound)), 127);
        assert_eq!(exit_code(&io::Error::from(io::ErrorKind::PermissionDenied)), 126);
    }
}
