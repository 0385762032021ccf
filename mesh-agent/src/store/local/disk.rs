//! **Effect.** The local store's file: what is in it, how it is made, checked, opened and added to.
//!
//! Values are JSON, so that a damaged store can be read by people. All that one group of transactions changes
//! goes to disk in one commit that is durable when it returns.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mesh_core::kv::{Batch, Event, KvState, LeaseId, Rev};
use redb::{Builder, Database, Durability, ReadableTable, TableDefinition};

use super::check::inspect;
use crate::store::StoreError;

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
pub(super) const ENTRIES: TableDefinition<'_, &str, &str> = TableDefinition::new("entries");
pub(super) const LOG: TableDefinition<'_, u64, &str> = TableDefinition::new("log");
pub(super) const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");

/// The format that this version writes and reads.
pub(super) const SCHEMA: &str = "1";
/// Everything is served from memory; the database needs little, and keeps all that it gets.
pub(super) const CACHE: usize = 1 << 20;

/// What a file holds.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) cluster: String,
    pub(super) state: KvState,
    /// With their time to live in seconds.
    pub(super) leases: Vec<(LeaseId, u64)>,
    pub(super) next_lease: u64,
}

/// What one commit adds.
#[derive(Debug, Default)]
pub(super) struct Addition {
    pub(super) batches: Vec<Batch>,
    pub(super) granted: Vec<(LeaseId, u64)>,
    pub(super) ended: Vec<LeaseId>,
    /// History before this revision may go.
    pub(super) oldest: Rev,
}

/// The open file. Nobody else has it open as long as this lives.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    db: Database,
    /// Taken before anything is looked at, so that two agents cannot even repair at once.
    _lock: File,
}

impl Disk {
    /// Opens the store of a path, or makes an empty one where there is none. What it cannot use it leaves as it is.
    pub(super) fn open(path: &Path) -> Result<(Self, Content), StoreError> {
        let failed = |what: &str, error: io::Error| StoreError::Unavailable {
            at: path.display().to_string(),
            why: format!("{what}: {error}"),
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(|error| failed("its directory cannot be made", error))?;
        let lock = lock(path)?;
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => create(path, parent, &new_cluster())?,
            Err(error) => return Err(failed("it cannot be looked at", error)),
        }
        let content = inspect(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| failed("it cannot be opened for writing", error))?;
        let db =
            Builder::new().set_cache_size(CACHE).create_file(file).map_err(|error| corrupt(path, &error))?;
        Ok((Self { path: path.to_owned(), db, _lock: lock }, content))
    }

    /// Makes an empty store for a mesh that there is already; what is at the path goes.
    pub(super) fn make(path: &Path, cluster: &str) -> Result<(Self, Content), StoreError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        {
            let _lock = lock(path)?;
            create(path, parent, cluster)?;
        }
        Self::open(path)
    }

    /// On a storage of its own, to see what becomes of its failures.
    #[cfg(test)]
    pub(super) fn on(path: &Path, backend: impl redb::StorageBackend) -> Result<(Self, Content), StoreError> {
        let lock = lock(path)?;
        let db = Builder::new().create_with_backend(backend).map_err(|error| corrupt(path, &error))?;
        initialize(&db, &new_cluster()).map_err(|error| corrupt(path, &error))?;
        let content = super::check::load(&db).map_err(|why| corrupt(path, &why))?;
        Ok((Self { path: path.to_owned(), db, _lock: lock }, content))
    }

    /// Writes one group down. After an error nobody knows whether it is there, and no more can be written.
    pub(super) fn add(&self, addition: &Addition) -> Result<(), redb::Error> {
        let mut txn = self.db.begin_write()?;
        txn.set_durability(Durability::Immediate)?;
        {
            let mut meta = txn.open_table(META)?;
            let mut entries = txn.open_table(ENTRIES)?;
            let mut log = txn.open_table(LOG)?;
            let mut leases = txn.open_table(LEASES)?;
            for batch in &addition.batches {
                for event in &batch.events {
                    match event {
                        Event::Put(kv) => drop(entries.insert(&*kv.key, json(kv).as_str())?),
                        Event::Delete(key) => drop(entries.remove(key.as_str())?),
                    }
                }
                log.insert(batch.rev.0, json(batch).as_str())?;
                meta.insert("rev", batch.rev.to_string().as_str())?;
            }
            while log.first()?.is_some_and(|(rev, _)| rev.value() < addition.oldest.0) {
                log.pop_first()?;
            }
            for (lease, seconds) in &addition.granted {
                leases.insert(lease.0, seconds)?;
                meta.insert("next_lease", (lease.0 + 1).to_string().as_str())?;
            }
            for lease in &addition.ended {
                leases.remove(lease.0)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Bytes on disk.
    pub(super) fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }
}

fn json<T: serde::Serialize>(record: &T) -> String {
    mesh_core::records::to_json(record)
}

/// The file makes no sense.
pub(super) fn corrupt(path: &Path, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        at: path.display().to_string(),
        why: format!(
            "{why}. The file was left untouched: restore a backup of it, or move it away to begin with an empty store"
        ),
    }
}

/// The lock is a file of its own beside the store, since the store itself may not be there yet.
fn lock(path: &Path) -> Result<File, StoreError> {
    let at = path.with_extension("lock");
    let unavailable = |why: String| StoreError::Unavailable { at: path.display().to_string(), why };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&at)
        .map_err(|error| unavailable(format!("its lock {} cannot be opened: {error}", at.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(unavailable(
            "another process has it open; stop the other agent, or give this one a state directory of its own"
                .to_owned(),
        )),
        Err(std::fs::TryLockError::Error(error)) => {
            Err(unavailable(format!("its lock {} cannot be taken: {error}", at.display())))
        }
    }
}

/// Makes an empty store, which gets its name only when it is whole: a crash leaves nothing that looks damaged.
fn create(path: &Path, parent: &Path, cluster: &str) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    let made = (|| -> Result<(), Box<dyn std::error::Error>> {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
        let db = Builder::new().set_cache_size(CACHE).create_file(file)?;
        initialize(&db, cluster)?;
        drop(db);
        File::open(&new)?.sync_all()?;
        std::fs::rename(&new, path)?;
        File::open(parent)?.sync_all()?;
        Ok(())
    })();
    made.map_err(|error| StoreError::Unavailable {
        at: path.display().to_string(),
        why: format!("an empty store cannot be made there: {error}"),
    })
}

fn initialize(db: &Database, cluster: &str) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert("schema", SCHEMA)?;
        meta.insert("cluster", cluster)?;
        meta.insert("rev", "0")?;
        meta.insert("next_lease", "1")?;
        txn.open_table(ENTRIES)?;
        txn.open_table(LOG)?;
        txn.open_table(LEASES)?;
    }
    txn.commit()?;
    Ok(())
}

/// A random UUID, so that no two stores are taken for one another.
fn new_cluster() -> String {
    let mut bytes = [0; 16];
    // Without random numbers the time still tells two stores apart.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.as_nanos().to_be_bytes();
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
