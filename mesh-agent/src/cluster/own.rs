//! **Effect.** The member of etcd that this node runs: its directory, what is to run, and the process.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::etcd::{CLIENT_PORT, MemberSpec, url};
use tokio::time::{Instant, sleep};

use super::supervise;
use crate::disk;
use crate::store::etcd::{Endpoint, EtcdOptions, Known, TlsFiles};

/// How long etcd may take to end.
const END: Duration = Duration::from_secs(20);

/// The directory of a member.
#[derive(Debug, Clone)]
pub struct Own {
    dir: PathBuf,
}

impl Own {
    /// That of a node, by its state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self::at(&state_dir.join("etcd"))
    }

    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What is to run, if anything.
    pub(super) fn spec(&self) -> anyhow::Result<Option<MemberSpec>> {
        disk::read(&self.file("member.json"))
    }

    /// Says what is to run, and sees to it that somebody runs it.
    pub(super) async fn run(&self, spec: &MemberSpec) -> anyhow::Result<()> {
        disk::directory(&self.dir)?;
        disk::write(&self.file("member.json"), spec)?;
        self.ensure().await
    }

    /// Says what is to run; who runs it looks there.
    pub(super) fn keep(&self, spec: &MemberSpec) -> anyhow::Result<()> {
        disk::write(&self.file("member.json"), spec)
    }

    /// Sees to it that what is to run is run.
    pub(super) async fn ensure(&self) -> anyhow::Result<()> {
        if self.spec()?.is_some() { supervise::ensure(self).await } else { Ok(()) }
    }

    /// Starts it anew, with the files as they are now.
    pub(super) async fn start_anew(&self) -> anyhow::Result<()> {
        self.ensure().await?;
        supervise::start_anew(self).await
    }

    /// Ends it, and throws all away that it had.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        disk::remove(&self.file("member.json"))?;
        let deadline = Instant::now() + END;
        while self.dir.exists() && supervise::runs(self) {
            if Instant::now() >= deadline {
                bail!("etcd does not end; see {}", self.file("etcd.log").display());
            }
            sleep(Duration::from_millis(50)).await;
        }
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }

    /// What etcd said last.
    pub(super) fn last_words(&self) -> String {
        let path = self.file("etcd.log");
        let log = std::fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let last: Vec<_> = log.lines().rev().take(3).collect();
        let last: Vec<_> = last.into_iter().rev().collect();
        format!("{} ends with: {}", path.display(), last.join(" / "))
    }

    /// The files with which members and managers speak to each other.
    pub fn tls(&self) -> TlsFiles {
        TlsFiles { ca: self.file("ca.pem"), own: Some((self.file("member.pem"), self.file("member.key"))) }
    }

    /// How to get at the records: by the own member first, and by those of other managers.
    pub(super) fn options(&self, own: bool, others: &[IpAddr], known: Known) -> anyhow::Result<EtcdOptions> {
        Ok(EtcdOptions {
            engine: "managed",
            endpoints: endpoints(own, others)?,
            prefix: super::PREFIX.to_owned(),
            tls: Some(self.tls()),
            user: None,
            known,
        })
    }
}

/// The own member's, and those of other managers.
pub(super) fn endpoints(own: bool, others: &[IpAddr]) -> anyhow::Result<Vec<Endpoint>> {
    let loopback = own.then_some(IpAddr::from([127, 0, 0, 1]));
    let all = loopback.into_iter().chain(others.iter().copied());
    all.map(|address| url(address, CLIENT_PORT).parse().map_err(anyhow::Error::msg)).collect()
}
