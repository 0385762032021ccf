//! **Effect.** The gateways of several managers: one is spoken to for as long as it is good, then the next.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mesh_core::kv::{LeaseId, Listing, Rev, Txn, TxnOutcome};

use super::GatewayStore;
use crate::pki::Tls;
use crate::store::{Batches, Store, StoreError, StoreStatus};

/// The store behind several gateways, which may become others.
#[derive(Debug)]
pub struct SeveralGateways {
    tls: Arc<Tls>,
    gateways: Mutex<Vec<(SocketAddr, Arc<GatewayStore>)>>,
}

impl SeveralGateways {
    /// Those at these addresses, the first one first.
    pub fn new(addresses: &[SocketAddr], tls: Arc<Tls>) -> Self {
        let several = Self { tls, gateways: Mutex::default() };
        several.set(addresses);
        several
    }

    fn gateways(&self) -> MutexGuard<'_, Vec<(SocketAddr, Arc<GatewayStore>)>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these are the gateways. One that stays is spoken to as before.
    pub fn set(&self, addresses: &[SocketAddr]) {
        let mut gateways = self.gateways();
        gateways.retain(|(address, _)| addresses.contains(address));
        for address in addresses {
            if gateways.iter().all(|(known, _)| known != address) {
                let gateway =
                    GatewayStore::with_certificate(vec![address.to_string()], Arc::clone(&self.tls));
                gateways.push((*address, Arc::new(gateway)));
            }
        }
    }

    /// Asks one after the other, until one answers, which is asked first from then on. Only what was certainly not done
    /// is asked of the next.
    async fn ask<T, F>(&self, request: impl Fn(Arc<GatewayStore>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let known = self.gateways().clone();
        let mut failed = None;
        for (place, (address, gateway)) in known.into_iter().enumerate() {
            match request(gateway).await {
                Err(error @ StoreError::Unavailable { .. }) => failed = failed.or(Some(error)),
                answered => {
                    if place > 0 {
                        let mut gateways = self.gateways();
                        if let Some(now) = gateways.iter().position(|(known, _)| *known == address) {
                            gateways.rotate_left(now);
                        }
                    }
                    return answered;
                }
            }
        }
        Err(failed.unwrap_or_else(|| StoreError::Unavailable {
            at: "no address".to_owned(),
            why: "no manager is known".to_owned(),
        }))
    }
}

#[async_trait]
impl Store for SeveralGateways {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.ask(|gateway| async move { gateway.list(prefix).await }).await
    }

    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        self.ask(|gateway| async move { gateway.watch(prefix, after).await }).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let request = |gateway: Arc<GatewayStore>| {
            let txn = txn.clone();
            async move { gateway.txn(txn).await }
        };
        self.ask(request).await
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.ask(|gateway| async move { gateway.lease(ttl).await }).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|gateway| async move { gateway.keep_alive(lease).await }).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        self.ask(|gateway| async move { gateway.status().await }).await
    }
}
