//! **Effect.** A store in a real etcd of its own.

use std::sync::Arc;

use async_trait::async_trait;
use mesh_agent::store::Store;
use mesh_agent::store::conformance::{Subject, commit, put};
use mesh_agent::store::etcd::{EtcdOptions, EtcdStore, Known};
use mesh_tests::Etcd;

/// How an agent would be told of an etcd.
pub(crate) fn options(urls: &[String]) -> EtcdOptions {
    EtcdOptions {
        engine: "external",
        endpoints: urls.iter().map(|url| url.parse().unwrap()).collect(),
        prefix: "/mesh/".to_owned(),
        tls: None,
        user: None,
        known: Known::default(),
    }
}

/// A store in an etcd.
pub(crate) fn store(etcd: &Etcd) -> EtcdStore {
    EtcdStore::new(options(&etcd.urls()))
}

/// A store in an etcd of its own.
pub(crate) struct InEtcd {
    pub(crate) store: Arc<EtcdStore>,
    pub(crate) etcd: Etcd,
}

impl InEtcd {
    pub(crate) fn fresh() -> Self {
        Self::of(1)
    }

    /// Of that many members.
    pub(crate) fn of(members: u8) -> Self {
        let etcd = Etcd::on_loopback(members).unwrap();
        Self { store: Arc::new(store(&etcd)), etcd }
    }

    /// Compacts all history.
    pub(crate) async fn compact(&self) {
        let rev = self.store.status().await.unwrap().rev.to_string();
        self.etcd.ctl(["compaction", &rev]).unwrap();
    }
}

#[async_trait]
impl Subject for InEtcd {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as _
    }

    async fn forget_history(&self) {
        commit(&*self.store, put("filler", "1")).await;
        self.compact().await;
    }
}
