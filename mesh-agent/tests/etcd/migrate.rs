//! **Effect.** A node's own records move into etcd.

use std::cell::RefCell;

use mesh_agent::store::Store;
use mesh_agent::store::conformance::{commit, put};
use mesh_agent::store::local::LocalStore;
use mesh_agent::store::migrate::into_etcd;
use mesh_core::records::GENERATION;

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
