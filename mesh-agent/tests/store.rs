//! **Effect.** The store's engines, each held to the same; and what each must survive by itself.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;

use async_trait::async_trait;
use mesh_agent::store::Store;
use mesh_agent::store::conformance::Subject;
use mesh_agent::store::gateway::{GatewayStore, Secret, serve};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use here::Local;

#[path = "store/cut.rs"]
mod cut;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/differential.rs"]
mod differential;
#[path = "store/durability.rs"]
mod durability;
#[path = "store/here.rs"]
mod here;
#[path = "store/random.rs"]
mod random;
#[path = "store/wire.rs"]
mod wire;

/// A local store behind a gateway, and its client.
struct Gateway {
    client: Arc<GatewayStore>,
    local: Local,
    addr: String,
    _stop: DropGuard,
}

impl Gateway {
    async fn fresh() -> Self {
        let local = Local::fresh();
        let (addr, stop) = gateway(local.store(), "127.0.0.1:0").await;
        let client = Arc::new(GatewayStore::connect(&addr, Secret::new("token").unwrap()));
        Self { client, local, addr, _stop: stop.drop_guard() }
    }
}

/// Serves a store.
async fn gateway(store: Arc<dyn Store>, addr: &str) -> (String, CancellationToken) {
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(serve(store, listener, Secret::new("token").unwrap(), stop.clone()));
    (addr, stop)
}

#[async_trait]
impl Subject for Gateway {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.client) as _
    }
}

mod local {
    mesh_agent::store_conformance!(async { super::here::Local::fresh() });
}

mod gateway {
    mesh_agent::store_conformance!(super::Gateway::fresh());
}
