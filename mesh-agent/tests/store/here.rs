//! **Effect.** A store in a file of its own.

use std::sync::Arc;

use async_trait::async_trait;
use mesh_agent::store::Store;
use mesh_agent::store::conformance::Subject;
use mesh_agent::store::local::LocalStore;
use tempfile::TempDir;

/// A local store in a directory of its own.
pub(crate) struct Local {
    pub(crate) store: Arc<LocalStore>,
    _dir: TempDir,
}

impl Local {
    pub(crate) fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Arc::new(LocalStore::open(dir.path().join("store.redb")).unwrap()), _dir: dir }
    }
}

#[async_trait]
impl Subject for Local {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }
}
