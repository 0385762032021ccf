//! **Effect.** A node's own records move into etcd.

use std::cell::RefCell;

use mesh_agent::store::Store;
use mesh_agent::store::conformance::{commit, put};
use mesh_agent::store::local::LocalStore;
use mesh_agent::store::migrate::{from_etcd, into_etcd};
use mesh_core::backup::Backup;
use mesh_core::kv::{Listing, Txn};
use mesh_core::model::NodeId;
use mesh_core::records::{GENERATION, generation};

use super::subject::{InEtcd, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_move_once_and_not_into_another_mesh() {
    let subject = InEtcd::fresh();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("store.redb");
    let (mesh, count) = {
        let local = LocalStore::open(&path).unwrap();
        for number in 0..1500 {
            commit(&local, put(&format!("nodespec/n{number}"), r#"{"availability":"pause"}"#)).await;
        }
        let held = into_etcd(&path, options(&subject.etcd.urls()), |_, _| {}).await.unwrap_err();
        assert!(format!("{held:#}").contains("stop the agent first"), "{held:#}");
        (local.status().await.unwrap().cluster, 1500)
    };
    let told = RefCell::new(Vec::new());
    let moved =
        into_etcd(&path, options(&subject.etcd.urls()), |done, all| told.borrow_mut().push((done, all)));
    assert_eq!(moved.await.unwrap(), count + 1);
    assert!(told.borrow().len() > 2 && told.borrow().last() == Some(&(count + 1, count + 1)), "{told:?}");
    let there = subject.store.list("").await.unwrap();
    assert_eq!((there.cluster, there.kvs.len()), (mesh, count + 1));
    assert!(there.kvs.iter().any(|kv| *kv.key == *GENERATION));

    let again = into_etcd(&path, options(&subject.etcd.urls()), |_, _| {}).await.unwrap_err();
    assert!(again.to_string().contains("there already"), "{again:#}");
    let path = other.path().join("store.redb");
    drop(LocalStore::open(&path).unwrap());
    let refused = into_etcd(&path, options(&subject.etcd.urls()), |_, _| {}).await.unwrap_err();
    assert!(refused.to_string().contains("another mesh"), "{refused:#}");
    assert_eq!(subject.store.list("").await.unwrap().rev, there.rev, "nothing was changed");
    let none = into_etcd(&other.path().join("none"), options(&subject.etcd.urls()), |_, _| {}).await;
    assert!(none.unwrap_err().to_string().contains("no records of its own"));
}

/// The records that come back are those that were there, of the same mesh, and later than all that was seen; not where another
/// node would be left without, nor out of another mesh's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_back_to_the_only_node() {
    let subject = InEtcd::fresh();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mesh = {
        let local = LocalStore::open(&path).unwrap();
        commit(&local, put("idx/node/n1", "n1id")).await;
        for number in 0..600 {
            commit(&local, put(&format!("nodespec/n{number}"), r#"{"availability":"pause"}"#)).await;
        }
        local.status().await.unwrap().cluster
    };
    into_etcd(&path, options(&subject.etcd.urls()), |_, _| {}).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let me = NodeId::new("n1id");
    let back = async |mesh: &str| from_etcd(dir.path(), &subject.store, &me, Some(mesh), |_, _| {}).await;
    commit(&*subject.store, put("nodespec/n1", r#"{"availability":"drain"}"#)).await;
    commit(&*subject.store, put("idx/node/n2", "n2id")).await;
    let refused = back(&mesh).await.unwrap_err();
    assert!(refused.to_string().contains("n2, whose agent does not answer"), "{refused:#}");
    let mut gone = Txn::default();
    gone.delete("idx/node/n2");
    commit(&*subject.store, gone).await;
    let refused = back("another").await.unwrap_err();
    assert!(refused.to_string().contains("this node belongs to another"), "{refused:#}");
    assert!(!path.exists(), "nothing was changed");
    // One that was broken off is begun anew.
    drop(LocalStore::open(dir.path().join("store.moved.redb")).unwrap());
    assert_eq!(back(&mesh).await.unwrap(), 602);
    let there = subject.store.list("").await.unwrap();
    let local = LocalStore::open(&path).unwrap();
    let here = local.list("").await.unwrap();
    assert_eq!(here.cluster, mesh);
    assert!(generation(&here.kvs) > generation(&there.kvs));
    let values = |listing: Listing| {
        let kept = listing.kvs.into_iter().filter(|kv| *kv.key != *GENERATION);
        kept.map(|kv| (kv.key, kv.value)).collect::<Vec<_>>()
    };
    let kept = Backup::parse(&std::fs::read_to_string(dir.path().join("records.before")).unwrap()).unwrap();
    assert_eq!(kept.records.len(), there.kvs.len());
    assert_eq!(values(here), values(there));
}
