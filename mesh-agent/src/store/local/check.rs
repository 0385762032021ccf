//! **Effect.** Reads a store's file whole, and says what is wrong with it, without changing a byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::Path;

use mesh_core::kv::{Batch, KeyValue, KvState, LeaseId, Rev};
use redb::{
    Builder, Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, Value,
};

use super::disk::{CACHE, Content, ENTRIES, LEASES, LOG, META, SCHEMA, corrupt};
use super::overlay::Overlay;
use crate::store::StoreError;

/// Reads and checks the whole file.
pub(super) fn inspect(path: &Path) -> Result<Content, StoreError> {
    let unreadable = |error: io::Error| StoreError::Unavailable {
        at: path.display().to_string(),
        why: format!("it cannot be read: {error}"),
    };
    let overlay = Overlay::over(File::open(path).map_err(unreadable)?).map_err(unreadable)?;
    if redb::StorageBackend::len(&overlay).map_err(unreadable)? == 0 {
        return Err(corrupt(path, &"the file is empty"));
    }
    let check = move || -> Result<Content, String> {
        let mut db = Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(overlay)
            .map_err(|error| format!("it is no store, or a damaged one: {error}"))?;
        match db.check_integrity() {
            Ok(true) => load(&db),
            Ok(false) => Err("its checksums do not match its contents".to_owned()),
            Err(error) => Err(format!("its contents are damaged: {error}")),
        }
    };
    // On a thread of its own: damage that the database did not expect shows as a panic, and is an answer too.
    let checking =
        std::thread::Builder::new().name("store-check".to_owned()).spawn(check).map_err(unreadable)?;
    match checking.join() {
        Ok(content) => content.map_err(|why| corrupt(path, &why)),
        Err(_) => Err(corrupt(path, &"its structure is damaged")),
    }
}

fn unread(error: &dyn Display) -> String {
    format!("its contents cannot be read: {error}")
}

fn rows<K: Key, V: Value>(
    txn: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
    mut each: impl FnMut(K::SelfType<'_>, V::SelfType<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let table = txn.open_table(table).map_err(|error| unread(&error))?;
    for row in table.iter().map_err(|error| unread(&error))? {
        let (key, value) = row.map_err(|error| unread(&error))?;
        each(key.value(), value.value())?;
    }
    Ok(())
}

/// What a database holds, if it makes sense.
pub(super) fn load(db: &Database) -> Result<Content, String> {
    let txn = db.begin_read().map_err(|error| unread(&error))?;
    let mut meta = BTreeMap::new();
    rows(&txn, META, |key, value| {
        meta.insert(key.to_owned(), value.to_owned());
        Ok(())
    })?;
    let text = |key: &str| meta.get(key).cloned().ok_or_else(|| format!("it does not say its {key}"));
    let number =
        |key: &str| text(key)?.parse::<u64>().map_err(|error| format!("its {key} is no number: {error}"));
    let schema = text("schema")?;
    if schema != SCHEMA {
        return Err(format!("its format is '{schema}', but this version of mesh knows only '{SCHEMA}'"));
    }
    let rev = Rev(number("rev")?);

    let mut leases = Vec::new();
    rows(&txn, LEASES, |lease, seconds| {
        leases.push((LeaseId(lease), seconds));
        Ok(())
    })?;
    let known: BTreeSet<_> = leases.iter().map(|(lease, _)| *lease).collect();
    let mut entries = Vec::new();
    rows(&txn, ENTRIES, |key, value| {
        let kv: KeyValue = serde_json::from_str(value).map_err(|error| format!("key '{key}': {error}"))?;
        let leased = kv.lease.is_none_or(|lease| known.contains(&lease));
        if *kv.key != *key || kv.created > kv.modified || kv.modified > rev || !leased {
            return Err(format!("key '{key}' contradicts the rest"));
        }
        entries.push(kv);
        Ok(())
    })?;
    let mut state = KvState::restore(rev, entries);
    let mut last = None;
    rows(&txn, LOG, |number, value| {
        let batch: Batch =
            serde_json::from_str(value).map_err(|error| format!("revision {number}: {error}"))?;
        if batch.rev.0 != number || last.is_some_and(|Rev(before)| before + 1 != number) {
            return Err(format!("its history has a gap at revision {number}"));
        }
        last = Some(batch.rev);
        state.recall(batch);
        Ok(())
    })?;
    if last.unwrap_or_default() != rev {
        return Err(format!("its history does not lead to its revision {rev}"));
    }
    for lease in known {
        state.grant(lease);
    }
    Ok(Content { cluster: text("cluster")?, state, leases, next_lease: number("next_lease")? })
}
