//! **Fact.** Which etcd there is on this machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use mesh_core::etcd;
use tokio::process::Command;
use tokio::time::timeout;

/// What the package brings along.
const OURS: &str = "/usr/lib/mesh/etcd";
/// How long it may take to say which version it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program and its version.
pub(super) async fn find() -> anyhow::Result<(PathBuf, (u32, u32, u32))> {
    let program = locate().context(
        "there is no etcd on this node: install it (Debian, Ubuntu: apt install etcd-server), or put the program \
         at /usr/lib/mesh/etcd",
    )?;
    let output = timeout(PATIENCE, Command::new(&program).arg("--version").output()).await;
    let output = output
        .with_context(|| format!("{} --version does not end", program.display()))?
        .with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::trim);
    let Some(version) = version else { bail!("{} is no etcd", program.display()) };
    crate::store::etcd::check_version(version)
        .map_err(|why| anyhow::anyhow!("{}: {why}", program.display()))?;
    let numbers = etcd::version(version).with_context(|| format!("'{version}' is no version of etcd"))?;
    Ok((program, numbers))
}

fn locate() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).map(|dir| dir.join("etcd"));
    std::iter::once(Path::new(OURS).to_owned()).chain(dirs).find(|program| program.is_file())
}
