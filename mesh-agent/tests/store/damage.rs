//! **Effect.** A damaged store is refused with the reason, and stays as it was; it is never served wrong.

use std::path::{Path, PathBuf};

use futures_util::future::join_all;
use mesh_agent::store::conformance::{commit, put};
use mesh_agent::store::local::LocalStore;
use mesh_agent::store::{Store, StoreError};
use mesh_core::kv::Listing;

/// A store with something in it, and what.
async fn filled(dir: &Path) -> (PathBuf, Listing) {
    let path = dir.join("store.redb");
    let store = LocalStore::open(&path).unwrap();
    join_all((0..300).map(|n| commit(&store, put(&format!("svc/{n}"), &"v".repeat(n * 7))))).await;
    let listing = store.list("").await.unwrap();
    (path, listing)
}

/// Opens what must be refused, and checks that it is left alone.
fn refused(path: &Path, content: &[u8]) -> String {
    std::fs::write(path, content).unwrap();
    let error = LocalStore::open(path).expect_err("it is damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(std::fs::read(path).unwrap() == content, "it was left untouched: {error}");
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()) && text.contains("restore a backup"), "{text}");
    text
}

#[tokio::test]
async fn what_is_no_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = filled(dir.path()).await;
    let good = std::fs::read(&path).unwrap();
    let mut noise = vec![0; 100_000];
    getrandom::fill(&mut noise).unwrap();

    assert!(refused(&path, b"").contains("the file is empty"));
    refused(&path, b"a");
    refused(&path, &noise);
    refused(&path, &vec![0; 8192]);
    for keep in [10, 100, 4096, 5000, good.len() / 3, good.len() / 2] {
        refused(&path, &good[..keep]);
    }
    // The head of a store, and then nothing of it.
    let mut headed = good.clone();
    headed[4096..].fill(0);
    refused(&path, &headed);
    let mut headed = good.clone();
    getrandom::fill(&mut headed[4096..]).unwrap();
    refused(&path, &headed);

    std::fs::write(&path, &good).unwrap();
    LocalStore::open(&path).expect("the good one still is");
}

#[tokio::test]
async fn a_later_format_and_another_program_s_database_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = filled(dir.path()).await;
    {
        let db = redb::Database::open(&path).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(redb::TableDefinition::<&str, &str>::new("meta"))
            .unwrap()
            .insert("schema", "99")
            .unwrap();
        txn.commit().unwrap();
    }
    let content = std::fs::read(&path).unwrap();
    let text = refused(&path, &content);
    assert!(text.contains("its format is '99', but this version of mesh knows only '1'"), "{text}");

    let other = dir.path().join("other.redb");
    drop(redb::Database::create(&other).unwrap());
    let content = std::fs::read(&other).unwrap();
    refused(&other, &content);
}

/// A byte that turned, anywhere: either it matters and the store is refused, or all is there.
#[tokio::test]
async fn a_flipped_bit_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let (path, listing) = filled(dir.path()).await;
    let good = std::fs::read(&path).unwrap();
    let hook = std::panic::take_hook();
    // The check may panic inside; that is an answer, and its text would only be noise here.
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("store-check") {
            hook(info);
        }
    }));
    let mut noticed = 0;
    for round in 0..150 {
        let mut random = [0; 9];
        getrandom::fill(&mut random).unwrap();
        let at = u64::from_le_bytes(random[..8].try_into().unwrap());
        // Half of them in the first pages, where the database keeps its own records.
        let at = at as usize % if round % 2 == 0 { 16 << 10 } else { good.len() };
        let mut bad = good.clone();
        bad[at] ^= 1 << (random[8] % 8);
        std::fs::write(&path, &bad).unwrap();
        match LocalStore::open(&path) {
            Ok(store) => {
                let found = store.list("").await.unwrap();
                assert!(found == listing, "byte {at} was flipped, and other content is served");
            }
            Err(error) => {
                noticed += 1;
                assert!(matches!(error, StoreError::Corrupt { .. }), "byte {at}: {error}");
                assert!(std::fs::read(&path).unwrap() == bad, "byte {at}: it was left untouched");
            }
        }
    }
    assert!(noticed > 10, "{noticed}");
}
