//! **Effect.** What every engine must do with watches.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use mesh_core::kv::{Rev, Txn};

use super::{Subject, commit, end_of, listed, next_events, play, put};
use crate::store::{Store, WatchEnd};

/// Six writers, a hundred revisions each: writes, rewrites, removals, pairs.
async fn write_much(store: &dyn Store) {
    join_all((0..6).map(|writer| async move {
        for n in 0..100 {
            let mut txn = Txn::default();
            txn.put(format!("w/{writer}/{}", n % 7), format!("{writer}-{n}"));
            txn.put(format!("pair/{writer}"), n.to_string());
            match n % 5 {
                0 => txn.delete(format!("w/{writer}/{}", (n + 3) % 7)),
                _ => txn.put(format!("x/{}", (n * 7 + writer) % 11), n.to_string()),
            }
            commit(store, txn).await;
        }
    }))
    .await;
}

/// A watch from a past revision that goes on live, while many write: each revision once, in order, whole, none
/// missing; and played upon an old list it gives the new list.
pub async fn watches_have_no_gap(subject: &impl Subject) {
    let store = subject.store();
    commit(&*store, put("w/0/0", "before")).await;
    let before = store.list("").await.expect("a list");
    for n in 0..50 {
        commit(&*store, put("w/1/1", &n.to_string())).await;
    }
    let watching = async {
        let mut watch = store.watch("", before.rev).await.expect("a watch");
        let mut all: std::collections::BTreeMap<_, _> =
            before.kvs.iter().map(|kv| (std::sync::Arc::clone(&kv.key), kv.clone())).collect();
        let mut seen = before.rev;
        while seen < Rev(before.rev.0 + 650) {
            let batch = next_events(&mut watch).await;
            assert_eq!(batch.rev, Rev(seen.0 + 1), "no gap, no duplicate, in order");
            seen = batch.rev;
            play(&mut all, batch);
        }
        all
    };
    let ((), all) = tokio::join!(write_much(&*store), watching);
    assert_eq!(all, listed(&*store, "").await);
}

/// A watch that breaks off again and again and resumes after what it saw last misses nothing.
pub async fn watches_resume_where_they_were(subject: &impl Subject) {
    let store = subject.store();
    let start = store.status().await.expect("a status").rev;
    let watching = async {
        let mut all = std::collections::BTreeMap::new();
        let mut seen = start;
        let end = Rev(start.0 + 600);
        while seen < end {
            let mut watch = store.watch("x/", seen).await.expect("a watch");
            for _ in 0..23 {
                // Heartbeats too say where to resume: nothing under the prefix came before.
                let Some(Ok(batch)) = watch.next().await else { panic!("the watch ended") };
                assert!(batch.rev > seen || batch.events.is_empty(), "{} again after {seen}", batch.rev);
                assert!(batch.rev >= seen, "heartbeats do not go back");
                seen = batch.rev;
                play(&mut all, batch);
                if seen >= end {
                    break;
                }
            }
        }
        all
    };
    let ((), all) = tokio::join!(write_much(&*store), watching);
    assert_eq!(all, listed(&*store, "x/").await);
}

/// A watch with nothing to tell says so, at once and at least each second, with the store's revision.
pub async fn heartbeats_come(subject: &impl Subject) {
    let store = subject.store();
    let rev = commit(&*store, put("other", "1")).await;
    let mut watch = store.watch("none/", Rev(0)).await.expect("a watch");
    let start = Instant::now();
    for _ in 0..5 {
        let beat = tokio::time::timeout(Duration::from_secs(1), watch.next()).await.expect("within a second");
        let beat = beat.expect("no end").expect("no error");
        assert!(beat.events.is_empty());
        assert_eq!(beat.rev, rev);
    }
    assert!(start.elapsed() > Duration::from_millis(300), "and not all the time");
}

/// Who asks for what is forgotten is told so, and a new list and a watch from there work.
pub async fn forgotten_history_is_said(subject: &impl Subject) {
    let store = subject.store();
    let first = commit(&*store, put("k", "1")).await;
    subject.forget_history().await;
    let mut watch = store.watch("", first).await.expect("a watch");
    let WatchEnd::Compacted(gone) = end_of(&mut watch).await else { panic!("it is forgotten") };
    assert!(watch.next().await.is_none(), "nothing comes after the end");
    let listing = store.list("").await.expect("a list");
    assert!(gone >= first && gone <= listing.rev);
    let mut watch = store.watch("", listing.rev).await.expect("a watch");
    let rev = commit(&*store, put("k", "2")).await;
    assert_eq!(next_events(&mut watch).await.rev, rev);
}
