//! **Effect.** What only managers may know, for only they speak to etcd: keys of authorities.

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use mesh_core::kv::Rev;

use super::EtcdStore;
use super::keys::{rev, revision};
use super::link::Whom;
use crate::store::StoreError;

impl EtcdStore {
    /// Reads one.
    pub async fn secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.link.keys().secret(name);
        let found = self.link.ask(Whom::Own, |session| {
            let (mut kv, key) = (session.kv(), key.clone());
            async move { session.ask(0, async move { kv.get(key, None).await }).await }
        });
        let found = found.await.map_err(|failure| self.failed(failure))?;
        Ok(found.kvs().first().map(|kv| kv.value().to_vec()))
    }

    /// Writes one.
    pub async fn put_secret(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        let key = self.link.keys().secret(name);
        let put = self.link.ask(Whom::Own, |session| {
            let (mut kv, key, value) = (session.kv(), key.clone(), value.to_vec());
            async move {
                session.ask(value.len(), async move { kv.put(key, value, None::<PutOptions>).await }).await
            }
        });
        put.await.map(drop).map_err(|failure| self.failed(failure))
    }

    /// The names of those that begin so, and when each was written.
    pub async fn secrets(&self, prefix: &str) -> Result<Vec<(String, Rev)>, StoreError> {
        let (all, key) = (self.link.keys().secret(""), self.link.keys().secret(prefix));
        let found = self.link.ask(Whom::Own, |session| {
            let (mut kv, key) = (session.kv(), key.clone());
            let options = GetOptions::new().with_prefix().with_keys_only();
            async move { session.ask(0, async move { kv.get(key, Some(options)).await }).await }
        });
        let found = found.await.map_err(|failure| self.failed(failure))?;
        let name = |key: &[u8]| Some(std::str::from_utf8(key).ok()?.strip_prefix(&all)?.to_owned());
        Ok(found.kvs().iter().filter_map(|kv| Some((name(kv.key())?, rev(kv.mod_revision())))).collect())
    }

    /// Removes one, if it is as it was written then.
    pub async fn remove_secret(&self, name: &str, written: Rev) -> Result<(), StoreError> {
        let key = self.link.keys().secret(name);
        let removed = self.link.ask(Whom::Own, |session| {
            let same = Compare::mod_revision(key.clone(), CompareOp::Equal, revision(written));
            let txn = Txn::new().when([same]).and_then([TxnOp::delete(key.clone(), None)]);
            let mut kv = session.kv();
            async move { session.ask(0, async move { kv.txn(txn).await }).await }
        });
        removed.await.map(drop).map_err(|failure| self.failed(failure))
    }
}
