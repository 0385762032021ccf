//! **Fact.** What opens a store, a gateway's token or a password: read from a file that nobody else may read, and
//! never shown.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longer ones do not fit into a request's head.
const MAX: usize = 4096;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read or made.
    #[error("the secret file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// Others may read it, so it is none.
    #[error("the secret file {path} has mode {mode:04o}, so that others can read it; run: chmod 0600 {path}")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("the secret {0} is empty")]
    Empty(String),
    /// It cannot be sent.
    #[error("the secret {0} is longer than {MAX} bytes or has characters other than printable ASCII")]
    Malformed(String),
}

/// A token or a password. It has no way to be printed.
#[derive(Clone)]
pub struct Secret {
    value: String,
    origin: Option<PathBuf>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    /// A secret from elsewhere than a file.
    pub fn new(value: impl Into<String>) -> Result<Self, SecretError> {
        Self::checked(value.into(), None)
    }

    /// Reads the secret in a file, whose owner alone may read it.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, SecretError> {
        let path = path.as_ref();
        let failed = |source| SecretError::File { path: path.to_owned(), source };
        let mut file = open_private(path)?;
        let mut text = String::new();
        (&mut file).take(MAX as u64 + 2).read_to_string(&mut text).map_err(failed)?;
        Self::checked(text.trim().to_owned(), Some(path.to_owned()))
    }

    /// Reads the secret in a file; where there is none, makes a random one.
    pub fn read_or_create(path: impl AsRef<Path>) -> Result<Self, SecretError> {
        let path = path.as_ref();
        let failed = |source| SecretError::File { path: path.to_owned(), source };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let mut bytes = [0; 24];
                getrandom::fill(&mut bytes)
                    .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
                let value: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(file, "{value}").and_then(|()| file.sync_all()).map_err(failed)?;
                Self::checked(value, Some(path.to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Self::read(path),
            Err(error) => Err(failed(error)),
        }
    }

    fn checked(value: String, origin: Option<PathBuf>) -> Result<Self, SecretError> {
        let secret = Self { value, origin };
        if secret.value.is_empty() {
            return Err(SecretError::Empty(secret.place()));
        }
        if secret.value.len() > MAX || !secret.value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SecretError::Malformed(secret.place()));
        }
        Ok(secret)
    }

    /// Where it is from, in words.
    pub fn place(&self) -> String {
        self.origin
            .as_ref()
            .map_or("of the configuration".to_owned(), |path| format!("in {}", path.display()))
    }

    /// What is secret.
    pub(super) fn expose(&self) -> &str {
        &self.value
    }

    /// The head that proves it.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.value)
    }

    /// Whether a head proves it. The time that this takes tells nothing but lengths.
    pub(super) fn admits(&self, head: &[u8]) -> bool {
        let expected = self.bearer();
        if head.len() != expected.len() {
            return false;
        }
        let differs =
            head.iter().zip(expected.bytes()).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        std::hint::black_box(differs) == 0
    }
}

/// Reads a private key, in a file whose owner alone may read it.
pub(crate) fn read_key(path: &Path) -> Result<Vec<u8>, SecretError> {
    let mut key = Vec::new();
    let read = open_private(path)?.read_to_end(&mut key);
    read.map_err(|source| SecretError::File { path: path.to_owned(), source })?;
    Ok(key)
}

fn open_private(path: &Path) -> Result<File, SecretError> {
    let failed = |source| SecretError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the file that is open, not of the path: they could be two.
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_private_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::read_or_create(&path).unwrap();
        assert_eq!(secret.value, Secret::read_or_create(&path).unwrap().value);
        assert_eq!(format!("{secret:?}"), "***");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let exposed = Secret::read(&path).unwrap_err().to_string();
        assert!(exposed.contains("has mode 0640") && exposed.contains("chmod 0600"), "{exposed}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, " \n").unwrap();
        assert!(Secret::read(&path).unwrap_err().to_string().ends_with("token is empty"));
        std::fs::write(&path, "two words").unwrap();
        assert!(matches!(Secret::read(&path), Err(SecretError::Malformed(_))));
        assert!(matches!(Secret::read(dir.path().join("none")), Err(SecretError::File { .. })));
    }

    #[test]
    fn only_the_whole_token_is_admitted() {
        let secret = Secret::new("abc").unwrap();
        assert!(secret.admits(b"Bearer abc"));
        for wrong in [&b"Bearer abd"[..], b"Bearer ab", b"Bearer abcd", b"", b"bearer abc"] {
            assert!(!secret.admits(wrong));
        }
    }
}
