//! **Effect.** Copies of the records: one a day beside etcd, and whenever somebody asks.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use mesh_core::backup::Backup;

use crate::disk;
use crate::store::Store;

/// How old the newest may become.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How many are kept.
const KEPT: usize = 2;

/// All records as a file has them.
pub(super) async fn export(store: &dyn Store) -> anyhow::Result<String> {
    let listing = store.list("").await.context("the records cannot be read")?;
    Ok(Backup::of(listing).to_text())
}

/// Makes one where the newest is too old, and removes those that are too many.
pub(super) async fn keep(dir: &Path, store: &dyn Store) -> anyhow::Result<()> {
    let mut there = list(dir);
    let fresh = |path: &PathBuf| {
        let age = std::fs::metadata(path).and_then(|file| file.modified());
        age.is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() < AGE)
    };
    if there.last().is_some_and(fresh) {
        return Ok(());
    }
    let text = export(store).await?;
    disk::directory(dir)?;
    let path = dir.join(format!("{}.mesh", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
    disk::write_bytes(&path, text.as_bytes())?;
    tracing::info!(path = %path.display(), bytes = text.len(), "copied the records");
    there.push(path);
    let spare = there.len().saturating_sub(KEPT);
    there.into_iter().take(spare).try_for_each(|path| disk::remove(&path))
}

/// The oldest first: their names are their times.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.map(|entry| entry.path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "mesh"));
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::store::local::LocalStore;

    #[tokio::test]
    async fn two_are_kept_and_one_is_made_each_day() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::open(dir.path().join("store")).unwrap();
        let copies = dir.path().join("snapshots");
        disk::directory(&copies).unwrap();
        for old in ["20200101T000000Z.mesh", "20200102T000000Z.mesh"] {
            let file = File::create(copies.join(old)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }
        keep(&copies, &store).await.unwrap();
        let made = list(&copies);
        assert_eq!(made.len(), 2);
        assert!(made[0].ends_with("20200102T000000Z.mesh"), "{made:?}");
        Backup::parse(&std::fs::read_to_string(&made[1]).unwrap()).unwrap();
        keep(&copies, &store).await.unwrap();
        assert_eq!(list(&copies), made, "it is fresh");
    }
}
