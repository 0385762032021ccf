use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicBool;

use futures_util::{FutureExt, StreamExt};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::store::WatchEnd;

/// A disk that can be made to fail.
#[derive(Debug)]
struct Failing(InMemoryBackend, Arc<AtomicBool>);

impl Failing {
    fn check(&self) -> std::io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.0.set_len(len)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.check()
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.0.write(offset, data)
    }
}

fn put(key: &str) -> Txn {
    let mut txn = Txn::default();
    txn.put(key, "1");
    txn
}

#[tokio::test]
async fn a_failing_disk_makes_it_read_only_and_nothing_is_shown_that_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let backend = Failing(InMemoryBackend::new(), Arc::clone(&fails));
    let (disk, content) = Disk::on(&dir.path().join("s.redb"), backend).unwrap();
    let store = LocalStore::start(disk, content).unwrap();
    assert_eq!(store.txn(put("a")).await.unwrap(), TxnOutcome::Committed { rev: Rev(1) });
    let lease = store.lease(Duration::from_secs(1)).await.unwrap();
    let mut watch = store.watch("", Rev(1)).await.unwrap();
    watch.next().await.unwrap().unwrap();

    fails.store(true, Ordering::SeqCst);
    let outcome = store.txn(put("b")).await.unwrap();
    assert!(
        matches!(&outcome, TxnOutcome::Unknown { why } if why.contains("restart the agent")),
        "{outcome:?}"
    );
    fails.store(false, Ordering::SeqCst);
    let refused = store.txn(put("c")).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unavailable { why, .. } if why.contains("nothing more is written"))
    );
    assert!(store.lease(Duration::from_secs(1)).await.is_err());

    let listing = store.list("").await.unwrap();
    assert_eq!((listing.rev, listing.kvs.len()), (Rev(1), 1));
    let status = store.status().await.unwrap();
    assert!(status.problem.is_some_and(|problem| problem.contains("see to the disk")));
    assert!(watch.next().now_or_never().is_none(), "nothing is shown");
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert!(store.keep_alive(lease).await.is_ok(), "no lease ends while its end cannot be written");
}

#[tokio::test]
async fn it_is_private_and_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/store.redb");
    let store = LocalStore::open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let second = LocalStore::open(&path).unwrap_err();
    assert!(second.to_string().contains("another process has it open"), "{second}");
    let mut watch = store.watch("", Rev(0)).await.unwrap();
    drop(store);
    let ends = watch.by_ref().filter_map(|item| async { item.err() }).collect::<Vec<_>>().await;
    assert!(matches!(ends[..], [WatchEnd::Lost(_)]), "{ends:?}");
    LocalStore::open(&path).unwrap();
}

#[tokio::test]
async fn leases_and_history_outlive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let (first, cluster) = {
        let store = LocalStore::open(&path).unwrap();
        let lease = store.lease(Duration::from_millis(1200)).await.unwrap();
        let mut txn = put("a");
        txn.ops.push(mesh_core::kv::Op::Put { key: "l".into(), value: String::new(), lease: Some(lease) });
        store.txn(txn).await.unwrap();
        store.txn(put("b")).await.unwrap();
        (lease, store.status().await.unwrap().cluster)
    };
    let store = LocalStore::open(&path).unwrap();
    assert_eq!(store.status().await.unwrap().cluster, cluster);
    let mut watch = store.watch("", Rev(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().events[0].key(), "b");
    store.keep_alive(first).await.unwrap();
    assert!(store.lease(Duration::from_secs(9)).await.unwrap() > first, "lease ids are never used again");
    let gone = loop {
        let batch = watch.next().await.unwrap().unwrap();
        if !batch.events.is_empty() {
            break batch;
        }
    };
    assert_eq!(gone.events, [mesh_core::kv::Event::Delete("l".to_owned())]);
    assert_eq!(store.keep_alive(first).await, Err(StoreError::LeaseGone(first)));
}

#[tokio::test]
async fn a_watch_ahead_of_the_store_is_told_that_it_went_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalStore::open(dir.path().join("store.redb")).unwrap();
    let mut watch = store.watch("", Rev(7)).await.unwrap();
    assert_eq!(watch.next().await, Some(Err(WatchEnd::WentBack(Rev(0)))));
    assert_eq!(watch.next().await, None);
}
