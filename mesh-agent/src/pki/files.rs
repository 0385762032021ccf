//! **Effect.** A node's keys and certificates on disk: `pki/` in the agent's state directory.
//!
//! Each file is whole or not there. A new certificate may come with a new key, and the two are two files: what is written
//! next to them first is taken up by the next reader if a crash comes in between.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};

use super::authority::{Authority, certificates, pem};
use super::{Peer, PkiError, peer};
use crate::store::etcd::TlsFiles;
use crate::store::gateway::{SecretError, read_key};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const NODE: &str = "node.pem";
const NODE_KEY: &str = "node.key";
const JOIN_KEY: &str = "join.key";

/// Where a node's keys and certificates are.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

/// What is in them, as text (PEM).
#[derive(Clone)]
pub struct NodeFiles {
    /// Whom to trust.
    pub roots: String,
    /// The node's certificate, and what leads from it to who is trusted.
    pub certificate: String,
    /// The node's key.
    pub key: String,
    /// What managers sign with.
    pub authority: Option<String>,
}

impl Files {
    /// Those of an agent with this state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("pki") }
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the node has a certificate.
    pub fn exist(&self) -> bool {
        self.dir.join(NODE).exists()
    }

    /// The files as others want them named: whom to trust; certificate and key.
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles { ca: self.dir.join(CA), own: Some((self.dir.join(NODE), self.dir.join(NODE_KEY))) }
    }

    /// Who the node is, as its certificate says.
    pub fn me(&self) -> Result<Peer, PkiError> {
        let path = self.dir.join(NODE);
        let wrong = |why: String| PkiError::wrong(path.display(), why);
        let all = certificates(&self.text(NODE)?).map_err(wrong)?;
        let first = all.first().ok_or_else(|| wrong("there is no certificate in it".to_owned()))?;
        Peer::read(first).map_err(wrong)
    }

    /// Reads the files of the node; its key must be the one of its certificate.
    pub fn read(&self) -> Result<NodeFiles, PkiError> {
        let read = self.read_as_they_are()?;
        if self.fit(&read)? {
            return Ok(read);
        }
        // A crash came between two renames: the second one is made up for.
        let (part, path) = (self.part(NODE), self.dir.join(NODE));
        if let Ok(certificate) = std::fs::read_to_string(&part) {
            let mended = NodeFiles { certificate, ..read };
            if self.fit(&mended).unwrap_or(false) {
                rename(&part, &path)?;
                return Ok(mended);
            }
        }
        let why = format!(
            "{NODE_KEY} is not the key of this certificate: let the node leave the mesh and join again"
        );
        Err(PkiError::wrong(path.display(), why))
    }

    fn read_as_they_are(&self) -> Result<NodeFiles, PkiError> {
        Ok(NodeFiles {
            roots: self.text(CA)?,
            certificate: self.text(NODE)?,
            key: self.secret(NODE_KEY)?,
            authority: if self.dir.join(CA_KEY).exists() { Some(self.secret(CA_KEY)?) } else { None },
        })
    }

    fn fit(&self, read: &NodeFiles) -> Result<bool, PkiError> {
        let path = self.dir.join(NODE);
        let wrong = |why: String| PkiError::wrong(path.display(), why);
        let all = certificates(&read.certificate).map_err(wrong)?;
        let first = all.first().ok_or_else(|| wrong("there is no certificate in it".to_owned()))?;
        let key = KeyPair::from_pem(&read.key);
        let key =
            key.map_err(|error| PkiError::wrong(self.dir.join(NODE_KEY).display(), error.to_string()))?;
        Ok(peer::public_key(first).map_err(wrong)? == key.der_bytes())
    }

    /// The authority, on a manager; `None`: this node is none.
    pub fn authority(&self) -> Result<Option<Authority>, PkiError> {
        if !self.dir.join(CA_KEY).exists() {
            return Ok(None);
        }
        let key = self.secret(CA_KEY)?;
        let why = match Authority::from_pem(&self.text(CA)?, &key) {
            Ok(authority) => return Ok(Some(authority)),
            Err(why) => why,
        };
        // A crash came between two renames here, too.
        let (part, path) = (self.part(CA), self.dir.join(CA));
        if let Ok(roots) = std::fs::read_to_string(&part)
            && let Ok(authority) = Authority::from_pem(&roots, &key)
        {
            rename(&part, &path)?;
            return Ok(Some(authority));
        }
        Err(PkiError::wrong(self.dir.join(CA_KEY).display(), why.to_string()))
    }

    /// Takes over another authority to sign by; the node's own certificate stays until it gets its next one.
    pub fn take_authority(&self, authority: &Authority) -> Result<(), PkiError> {
        let read = self.read()?;
        self.write(&NodeFiles { roots: authority.roots_pem(), authority: Some(authority.key_pem()), ..read })
    }

    /// Trusts that authority alone.
    pub fn trust_only(&self, authority: &str) -> Result<(), PkiError> {
        let read = self.read()?;
        let path = self.dir.join(CA);
        let wrong = |why: String| PkiError::wrong(path.display(), why);
        let mut roots = certificates(&read.roots).map_err(wrong)?;
        roots.retain(|root| peer::name(root).is_ok_and(|name| name == authority));
        if roots.is_empty() {
            return Err(wrong(format!("there is no authority of the name {authority} in it")));
        }
        let roots = roots.iter().map(|root| pem("CERTIFICATE", root)).collect();
        self.write(&NodeFiles { roots, ..read })
    }

    /// Writes the node's files. What takes effect at once comes last: a crash before leaves the old ones.
    pub fn write(&self, files: &NodeFiles) -> Result<(), PkiError> {
        self.make_dir()?;
        self.prepare(NODE_KEY, &files.key, 0o600)?;
        self.prepare(NODE, &files.certificate, 0o644)?;
        self.prepare(CA, &files.roots, 0o644)?;
        if let Some(authority) = &files.authority {
            self.prepare(CA_KEY, authority, 0o600)?;
            self.settle(CA_KEY)?;
        } else {
            remove(&self.dir.join(CA_KEY))?;
        }
        for name in [CA, NODE_KEY, NODE] {
            self.settle(name)?;
        }
        remove(&self.dir.join(JOIN_KEY))?;
        self.sync()
    }

    /// The key that the node asks to join with: the same one each time until it is told yes or no, so that it is the same
    /// node.
    pub(super) fn join_key(
        &self,
        fresh: impl FnOnce() -> Result<String, PkiError>,
    ) -> Result<String, PkiError> {
        if self.dir.join(JOIN_KEY).exists() {
            return self.secret(JOIN_KEY);
        }
        let key = fresh()?;
        self.make_dir()?;
        self.prepare(JOIN_KEY, &key, 0o600)?;
        self.settle(JOIN_KEY)?;
        self.sync()?;
        Ok(key)
    }

    /// Forgets that key: the answer was no.
    pub(super) fn forget_join_key(&self) -> Result<(), PkiError> {
        remove(&self.dir.join(JOIN_KEY))
    }

    /// Removes all of them, as when the node leaves its mesh.
    pub fn remove(&self) -> Result<(), PkiError> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(PkiError::File { path: self.dir.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn make_dir(&self) -> Result<(), PkiError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|source| PkiError::File { path: self.dir.clone(), source })
    }

    fn text(&self, name: &str) -> Result<String, PkiError> {
        let path = self.dir.join(name);
        let read = File::open(&path).and_then(|file| {
            let mut text = String::new();
            file.take(1 << 20).read_to_string(&mut text)?;
            Ok(text)
        });
        read.map_err(|source| PkiError::File { path, source })
    }

    fn secret(&self, name: &str) -> Result<String, PkiError> {
        let path = self.dir.join(name);
        let bytes = read_key(&path)?;
        String::from_utf8(bytes)
            .map_err(|_| PkiError::Secret(SecretError::Malformed(path.display().to_string())))
    }

    fn part(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.new"))
    }

    /// Writes a file next to the one whose place it will take.
    fn prepare(&self, name: &str, text: &str, mode: u32) -> Result<(), PkiError> {
        let path = self.part(name);
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path)?;
            // One that was left there may have others.
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })();
        written.map_err(|source| PkiError::File { path, source })
    }

    fn settle(&self, name: &str) -> Result<(), PkiError> {
        rename(&self.part(name), &self.dir.join(name))
    }

    fn sync(&self) -> Result<(), PkiError> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| PkiError::File { path: self.dir.clone(), source })
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), PkiError> {
    std::fs::rename(from, to).map_err(|source| PkiError::File { path: to.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), PkiError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(PkiError::File { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{create_ca, new_request};
    use mesh_core::certificate::{LIFE, Validity};
    use mesh_core::model::{NodeId, Role};

    const NOW: u64 = 1_800_000_000_000;

    fn made(authority: &Authority) -> NodeFiles {
        let (request, key) = new_request().unwrap();
        let subject =
            crate::pki::Subject { node: NodeId::new("n1"), role: Role::Worker, addresses: Vec::new() };
        let validity = Validity::begin(NOW, LIFE);
        let certificate = authority.issue(&request, &subject, crate::pki::new_serial(), validity).unwrap();
        NodeFiles { roots: authority.roots_pem(), certificate, key, authority: None }
    }

    /// Whatever a crash leaves of a change of key and certificate: the old pair or the new one.
    #[test]
    fn a_crash_leaves_a_key_and_its_certificate() {
        let authority = create_ca("mesh1", NOW).unwrap();
        let (old, new) = (made(&authority), made(&authority));
        for steps in 0..=6 {
            let dir = tempfile::tempdir().unwrap();
            let files = Files::of(dir.path());
            files.write(&old).unwrap();
            let actions: [&dyn Fn() -> Result<(), PkiError>; 6] = [
                &|| files.prepare(NODE_KEY, &new.key, 0o600),
                &|| files.prepare(NODE, &new.certificate, 0o644),
                &|| files.prepare(CA, &new.roots, 0o644),
                &|| files.settle(CA),
                &|| files.settle(NODE_KEY),
                &|| files.settle(NODE),
            ];
            for action in &actions[..steps] {
                action().unwrap();
            }
            let read = files.read().unwrap();
            let expected = if steps < 5 { &old } else { &new };
            assert!(
                read.key == expected.key && read.certificate == expected.certificate,
                "after {steps} steps"
            );
            assert_eq!(files.me().unwrap().node.as_str(), "n1");
            // The next change goes as any other.
            files.write(&old).unwrap();
            assert_eq!(files.read().unwrap().key, old.key);
        }
    }

    #[test]
    fn a_crash_leaves_an_authority_and_its_key() {
        let (old, dir) = (create_ca("mesh1", NOW).unwrap(), tempfile::tempdir().unwrap());
        let files = Files::of(dir.path());
        old.found(&NodeId::new("m1"), NOW, LIFE, &files).unwrap();
        let new = old.rotate(NOW).unwrap();
        files.prepare(CA, &new.roots_pem(), 0o644).unwrap();
        files.prepare(CA_KEY, &new.key_pem(), 0o600).unwrap();
        assert_eq!(files.authority().unwrap().unwrap().pin(), old.pin());
        files.settle(CA_KEY).unwrap();
        for _ in 0..2 {
            assert_eq!(files.authority().unwrap().unwrap().pin(), new.pin());
            assert_eq!(files.authority().unwrap().unwrap().roots_pem(), new.roots_pem());
        }
    }

    #[test]
    fn an_authority_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(dir.path());
        let authority = create_ca("mesh1", NOW).unwrap();
        authority.found(&NodeId::new("m1"), NOW, LIFE, &files).unwrap();
        assert_eq!(files.authority().unwrap().unwrap().pin(), authority.pin());
        let me = files.me().unwrap();
        assert_eq!((me.cluster.as_str(), me.node.as_str(), me.role), ("mesh1", "m1", Role::Manager));
        assert_eq!(me.serial.len(), 32);
        let other = create_ca("mesh1", NOW).unwrap();
        files.write(&NodeFiles { roots: other.roots_pem(), ..files.read().unwrap() }).unwrap();
        let why = files.authority().unwrap_err().to_string();
        assert!(
            why.contains("ca.key") && why.contains("not the key of the first certificate in ca.pem"),
            "{why}"
        );
        files.remove().unwrap();
        files.remove().unwrap();
        assert!(!files.exist());
    }
}
