//! **Effect.** Members of etcd that die, freeze and come back: what was acknowledged stays, what is watched has no gap,
//! and the next member is found soon.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use mesh_agent::store::conformance::{commit, put};
use mesh_agent::store::etcd::EtcdStore;
use mesh_agent::store::{Store, StoreError, WatchEnd};
use mesh_core::kv::{Batch, Event, Rev, Txn, TxnOutcome};

use super::cut::Wire;
use super::subject::{InEtcd, options, store};

/// How long it may take until another member does the work: it is noticed within 1.5 s that one is silent, and the
/// others choose a leader within as much.
const SOON: Duration = Duration::from_secs(5);

/// The place in the list of the member that a store speaks to.
async fn spoken_to(subject: &InEtcd) -> usize {
    let member = subject.store.member().await.expect("a member is spoken to");
    subject.etcd.urls().iter().position(|url| *url == member).unwrap()
}

/// Follows a prefix as an agent does, over every loss, up to the key `end`.
async fn follow(store: &dyn Store, prefix: &str, mut after: Rev) -> Vec<Batch> {
    let mut all: Vec<Batch> = Vec::new();
    loop {
        let mut watch = match store.watch(prefix, after).await {
            Ok(watch) => watch,
            Err(StoreError::Unavailable { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        while let Some(item) = watch.next().await {
            match item {
                Ok(batch) => {
                    assert!(batch.rev >= after, "{} after {after}", batch.rev);
                    after = batch.rev;
                    let end = batch.events.iter().any(|event| event.key().ends_with("end"));
                    if !batch.events.is_empty() {
                        all.push(batch);
                    }
                    if end {
                        return all;
                    }
                }
                Err(WatchEnd::Lost(_)) => break,
                Err(end) => panic!("{end}"),
            }
        }
    }
}

/// Increments a counter under compare-and-set until told to stop; gives back how often it was acknowledged, and the
/// longest wait for one of them.
async fn count(store: &dyn Store, stop: &AtomicUsize) -> (u64, Duration) {
    let (mut rev, mut n, mut longest) = (Rev(0), 0, Duration::ZERO);
    while stop.load(Ordering::Relaxed) == 0 {
        let mut txn = put("count/n", &(n + 1).to_string());
        txn.unchanged("count/n", rev);
        let start = Instant::now();
        match store.txn(txn).await.expect("a member is there") {
            TxnOutcome::Committed { rev: committed } => (rev, n) = (committed, n + 1),
            other => panic!("nobody else writes it, and what becomes of it is known: {other:?}"),
        }
        longest = longest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    commit(store, put("count/end", "")).await;
    (n, longest)
}

/// Does something to a member while a counter runs and is watched.
async fn while_counting(subject: &mut InEtcd, mut fault: impl AsyncFnMut(&mut InEtcd)) -> Duration {
    let store = Arc::clone(&subject.store);
    let watcher = super::subject::store(&subject.etcd);
    let start = store.status().await.unwrap().rev;
    let stop = AtomicUsize::new(0);
    let faults = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        fault(subject).await;
        tokio::time::sleep(SOON).await;
        stop.store(1, Ordering::Relaxed);
    };
    let ((), (n, longest), batches) =
        tokio::join!(faults, count(&*store, &stop), follow(&watcher, "count/", start));
    let seen: Vec<_> = batches
        .iter()
        .flat_map(|batch| &batch.events)
        .filter_map(|event| match event {
            Event::Put(kv) if *kv.key == *"count/n" => Some(kv.value.parse::<u64>().unwrap()),
            _ => None,
        })
        .collect();
    assert_eq!(seen, (1..=n).collect::<Vec<_>>(), "each once, in order");
    println!("{n} increments, the longest wait was {longest:?}");
    assert!(longest < SOON, "{longest:?}");
    longest
}

/// Writes wait for the next leader, and none is lost or done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies() {
    let mut subject = InEtcd::of(3);
    while_counting(&mut subject, async |subject| {
        let leader = subject.etcd.leader().unwrap();
        subject.etcd.member(leader).kill().unwrap();
    })
    .await;
}

/// Whoever spoke to it finds another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_member_that_is_spoken_to_dies() {
    let mut subject = InEtcd::of(3);
    while_counting(&mut subject, async |subject| {
        let member = spoken_to(subject).await;
        subject.etcd.member(member).kill().unwrap();
    })
    .await;
    let first = spoken_to(&subject).await;
    subject.etcd.member(first).wait_ready().unwrap();
}

/// A member that is frozen keeps its connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_member_that_is_spoken_to_freezes() {
    let mut subject = InEtcd::of(3);
    let mut frozen = 0;
    while_counting(&mut subject, async |subject| {
        frozen = spoken_to(subject).await;
        subject.etcd.member(frozen).pause().unwrap();
    })
    .await;
    assert_ne!(spoken_to(&subject).await, frozen);
    subject.etcd.member(frozen).resume().unwrap();
}

/// A watch on a frozen member ends within two seconds, and the next one is on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_a_frozen_member_moves_soon() {
    let mut subject = InEtcd::of(3);
    let rev = commit(&*subject.store, put("k", "1")).await;
    let mut watch = subject.store.watch("", rev).await.unwrap();
    watch.next().await.unwrap().unwrap();
    let leader = subject.etcd.leader().unwrap();
    let member = spoken_to(&subject).await;
    subject.etcd.member(member).pause().unwrap();
    let start = Instant::now();
    let end = mesh_agent::store::conformance::end_of(&mut watch).await;
    let noticed = start.elapsed();
    assert!(matches!(end, WatchEnd::Lost(_)), "{end}");
    assert!(noticed > Duration::from_millis(700) && noticed < Duration::from_millis(2500), "{noticed:?}");
    let mut watch = subject.store.watch("", rev).await.unwrap();
    let rev = commit(&*subject.store, put("k", "2")).await;
    assert_eq!(mesh_agent::store::conformance::next_events(&mut watch).await.rev, rev);
    let moved = start.elapsed();
    println!("noticed after {noticed:?}, moved after {moved:?}; it was the leader: {}", member == leader);
    assert!(moved < SOON, "{moved:?}");
}

/// A request that a frozen member had taken, and that was decided elsewhere meanwhile, does nothing when that
/// member goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_member_still_holds_is_never_done() {
    for _ in 0..3 {
        let mut subject = InEtcd::of(3);
        let start = commit(&*subject.store, put("n", "0")).await;
        let member = spoken_to(&subject).await;
        subject.etcd.member(member).pause().unwrap();
        for value in ["1", "2"] {
            commit(&*subject.store, put("n", value)).await;
        }
        assert_ne!(spoken_to(&subject).await, member);
        subject.etcd.member(member).resume().unwrap();
        subject.etcd.member(member).wait_ready().unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        commit(&*subject.store, put("end", "")).await;
        let all = follow(&*subject.store, "", start).await;
        let values: Vec<_> = all
            .iter()
            .flat_map(|batch| &batch.events)
            .filter_map(|event| match event {
                Event::Put(kv) if *kv.key == *"n" => Some(&*kv.value),
                _ => None,
            })
            .collect();
        assert_eq!(values, ["1", "2"]);
    }
}

/// Most members are gone: nothing is written, and that is known. They come back: it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn most_members_are_gone_for_a_while() {
    let mut subject = InEtcd::of(3);
    let rev = commit(&*subject.store, put("k", "1")).await;
    for member in [0, 1] {
        subject.etcd.member(member).kill().unwrap();
    }
    let start = Instant::now();
    let refused = subject.store.txn(put("k", "2")).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. }) | Ok(TxnOutcome::Unknown { .. })),
        "{refused:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    let refused = subject.store.txn(put("k", "3")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    for member in [0, 1] {
        subject.etcd.member(member).start().unwrap();
    }
    for member in [0, 1] {
        subject.etcd.member(member).wait_ready().unwrap();
    }
    let mut watch = subject.store.watch("k", rev).await.unwrap();
    let now = commit(&*subject.store, put("k", "4")).await;
    let mut last = rev;
    while last < now {
        last = mesh_agent::store::conformance::next_events(&mut watch).await.rev;
    }
}

/// All members are gone: that is said at once.
#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let mut subject = InEtcd::fresh();
    let rev = commit(&*subject.store, put("k", "1")).await;
    subject.etcd.kill().unwrap();
    // Of a request that met the end of its connection nobody can tell whether it arrived.
    let met = subject.store.txn(put("k", "2")).await;
    assert!(matches!(met, Err(StoreError::Unavailable { .. }) | Ok(TxnOutcome::Unknown { .. })), "{met:?}");
    let start = Instant::now();
    let url = &subject.etcd.urls()[0];
    for error in [
        subject.store.txn(put("k", "2")).await.unwrap_err(),
        subject.store.list("").await.unwrap_err(),
        subject.store.watch("", rev).await.err().unwrap(),
        subject.store.lease(Duration::from_secs(5)).await.unwrap_err(),
    ] {
        assert!(matches!(&error, StoreError::Unavailable { at, .. } if at == url), "{error}");
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    subject.etcd.start().unwrap();
    let now = commit(&*subject.store, put("k", "3")).await;
    assert!(now > rev);
    assert_eq!(&*subject.store.list("").await.unwrap().kvs[0].value, "3");
}

/// A wire that breaks again and again: of every transaction it is known in the end what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marks_tell_what_became_of_a_transaction() {
    let subject = InEtcd::fresh();
    let target = subject.etcd.urls()[0].trim_start_matches("http://").to_owned();
    let wire = Wire::to(&target, 4000).await;
    let (committed, unknown) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (direct, wire) = (store(&subject.etcd), &wire);
    direct.status().await.unwrap();
    let told: Vec<Vec<(String, String, Option<Rev>)>> = join_all((0..10).map(|n| {
        let (committed, unknown) = (&committed, &unknown);
        async move {
            let store = EtcdStore::new(options(&[format!("http://{}", wire.addr)]));
            let mut told = Vec::new();
            for round in 0..30 {
                let (key, me) = (format!("claim/{round}"), format!("owner-{n}"));
                let mut txn = Txn::default();
                txn.claim(key.clone(), me.clone());
                match store.txn(txn).await {
                    Ok(TxnOutcome::Committed { rev }) => {
                        committed.fetch_add(1, Ordering::Relaxed);
                        told.push((key, me, Some(rev)));
                    }
                    Ok(TxnOutcome::Conflict { found, .. }) => {
                        assert_ne!(*found[0].value, *me, "{key}: it is ours already, and nobody told");
                        told.push((key, me, None));
                    }
                    Ok(TxnOutcome::Unknown { .. }) => drop(unknown.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
                        told.push((key, me, None));
                    }
                }
            }
            told
        }
    }))
    .await;
    let found = direct.list("claim/").await.unwrap();
    for (key, me, rev) in told.into_iter().flatten() {
        let owner = found.kvs.iter().find(|kv| *kv.key == *key);
        let mine = owner.filter(|kv| *kv.value == *me).map(|kv| kv.modified);
        assert_eq!(mine, rev, "{key}, {me}");
    }
    let (committed, unknown, broken) = (committed.into_inner(), unknown.into_inner(), wire.broken());
    println!("{committed} committed, {unknown} unknown, {broken} connections broke");
    assert!(broken > 20, "the wire broke");
    assert!(committed + unknown >= found.kvs.len() && unknown <= committed / 4, "{committed}, {unknown}");
}
