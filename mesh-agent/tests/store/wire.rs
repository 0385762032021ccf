//! **Effect.** The gateway on a bad day: wrong tokens, cut wires, silent peers, slow readers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use mesh_agent::store::conformance::{Subject, commit, end_of, next_events, put};
use mesh_agent::store::gateway::{GatewayStore, Secret};
use mesh_agent::store::{Store, StoreError, WatchEnd};
use mesh_core::kv::{Rev, Txn, TxnOutcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::cut::Wire;
use super::here::Local;
use super::{Gateway, gateway};

fn client(addr: &str) -> GatewayStore {
    GatewayStore::connect(addr, Secret::new("token").unwrap())
}

#[tokio::test]
async fn a_wrong_token_is_told_where_to_look() {
    let subject = Gateway::fresh().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    Secret::read_or_create(&path).unwrap();
    let store = GatewayStore::connect(&subject.addr, Secret::read(&path).unwrap());
    let denied = [
        store.list("").await.unwrap_err(),
        store.txn(put("k", "1")).await.unwrap_err(),
        store.watch("", Rev(0)).await.err().unwrap(),
        store.lease(Duration::from_secs(1)).await.unwrap_err(),
    ];
    for error in denied {
        assert!(matches!(error, StoreError::Denied { .. }));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(subject.local.store.status().await.unwrap().rev, Rev(0));
}

#[tokio::test]
async fn nobody_there_means_nothing_written() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let store = client(&addr);
    for error in [store.txn(put("k", "1")).await.unwrap_err(), store.list("").await.unwrap_err()] {
        assert!(matches!(&error, StoreError::Unavailable { at, .. } if *at == addr), "{error}");
    }
    assert!(matches!(store.watch("", Rev(0)).await, Err(StoreError::Unavailable { .. })));
}

/// A peer that accepts, reads, and never says anything.
#[tokio::test]
async fn a_peer_that_falls_silent_leaves_a_transaction_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = client(&listener.local_addr().unwrap().to_string());
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let start = Instant::now();
    let (txn, list) = tokio::join!(store.txn(put("k", "1")), store.list(""));
    assert!(matches!(&txn, Ok(TxnOutcome::Unknown { why }) if why.contains("in time")), "{txn:?}");
    assert!(matches!(list, Err(StoreError::Unavailable { .. })));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

/// A watch through a wire that goes dead without closing ends after two seconds, and can be resumed.
#[tokio::test]
async fn a_watch_notices_that_nothing_comes_any_more() {
    let subject = Gateway::fresh().await;
    let wire = Wire::to(&subject.addr, usize::MAX).await;
    let store = client(&wire.addr);
    let rev = commit(&store, put("k", "1")).await;
    let mut watch = store.watch("", Rev(0)).await.unwrap();
    assert_eq!(next_events(&mut watch).await.rev, rev);
    wire.budget.store(0, Ordering::SeqCst);
    let start = Instant::now();
    assert!(matches!(end_of(&mut watch).await, WatchEnd::Lost(_)));
    let after = start.elapsed();
    assert!(after > Duration::from_millis(1400) && after < Duration::from_secs(4), "{after:?}");
    assert!(watch.next().await.is_none());
}

/// The gateway goes away while it is watched and comes back: the watch ends at once, requests work again.
#[tokio::test]
async fn a_gateway_that_stops_ends_its_watches_and_may_return() {
    let local = Local::fresh();
    let (addr, stop) = gateway(local.store(), "127.0.0.1:0").await;
    let store = client(&addr);
    let rev = commit(&store, put("k", "1")).await;
    let mut watch = store.watch("", rev).await.unwrap();
    watch.next().await.unwrap().unwrap();
    stop.cancel();
    let end = tokio::time::timeout(Duration::from_secs(1), end_of(&mut watch)).await.unwrap();
    assert_eq!(end, WatchEnd::Lost("the gateway stops".to_owned()));
    while TcpStream::connect(&addr).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, _stop) = gateway(local.store(), &addr).await;
    assert_eq!(commit(&store, put("k", "2")).await, Rev(rev.0 + 1));
}

/// Another store behind the same address is noticed before anything is written to it.
#[tokio::test]
async fn another_store_behind_the_address_is_refused() {
    let first = Local::fresh();
    let (addr, stop) = gateway(first.store(), "127.0.0.1:0").await;
    let store = client(&addr);
    let cluster = store.status().await.unwrap().cluster;
    stop.cancel();
    while TcpStream::connect(&addr).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = Local::fresh();
    let (_, _stop) = gateway(second.store(), &addr).await;
    let refused = store.txn(put("k", "1")).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Denied { why, .. } if why.contains("another store")), "{refused}");
    let mut watch = store.watch("", Rev(0)).await.unwrap();
    assert_eq!(end_of(&mut watch).await, WatchEnd::WrongCluster);
    assert_ne!(store.list("").await.unwrap().cluster, cluster, "who lists sees it and decides");
    assert_eq!(second.store.status().await.unwrap().rev, Rev(0));
}

/// A wire that breaks after every few bytes: what is said to be committed is, what is said to be in conflict
/// is not, and of the unknown ones a list tells; in the end every claim has one owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_never_claims_and_never_lies() {
    let subject = Gateway::fresh().await;
    let (committed, unknown) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wire = Wire::to(&subject.addr, 900).await;
    let (local, wire) = (&subject.local.store, &wire);
    join_all((0..20).map(|n| {
        let (committed, unknown) = (&committed, &unknown);
        async move {
            let store = client(&wire.addr);
            for round in 0..20 {
                let (key, me) = (format!("claim/{round}"), format!("owner-{n}"));
                let mut txn = Txn::default();
                txn.claim(key.clone(), me.clone());
                let outcome = store.txn(txn).await;
                let owner = local.list(&key).await.unwrap().kvs.into_iter().find(|kv| *kv.key == *key);
                let mine = owner.as_ref().is_some_and(|kv| *kv.value == *me);
                match outcome {
                    Ok(TxnOutcome::Committed { rev }) => {
                        committed.fetch_add(1, Ordering::SeqCst);
                        assert!(mine && owner.is_some_and(|kv| kv.modified == rev), "{key}");
                    }
                    Ok(TxnOutcome::Conflict { .. }) => assert!(owner.is_some() && !mine, "{key}"),
                    Ok(TxnOutcome::Unknown { .. }) => drop(unknown.fetch_add(1, Ordering::SeqCst)),
                    Err(error) => {
                        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
                        assert!(!mine, "{key}: an error means that nothing was written");
                    }
                }
            }
        }
    }))
    .await;
    let (committed, unknown) = (committed.into_inner(), unknown.into_inner());
    println!("{committed} committed, {unknown} unknown, {} connections broke", wire.broken());
    assert!(committed > 0 && unknown > 0, "the wire broke, but not always: {committed}, {unknown}");
}

/// Readers that never read hold up neither writers nor other readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_holds_up_nobody() {
    let subject = Gateway::fresh().await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(&subject.addr).await.unwrap();
        let ask = "GET /store/v1/watch?after=0 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    let store = subject.store();
    let mut watch = store.watch("", Rev(0)).await.unwrap();
    for n in 0..100 {
        let rev = commit(&*store, put("k", &n.to_string().repeat(200_000))).await;
        assert_eq!(next_events(&mut watch).await.rev, rev);
    }
}

/// What the HTTP of it must keep out.
#[tokio::test]
async fn requests_without_sense_are_answered_and_change_nothing() {
    let subject = Gateway::fresh().await;
    let auth = "authorization: Bearer token\r\n";
    let long = format!("x: {}\r\n", "y".repeat(200_000));
    let bodies = [
        ("GET /store/v1/list HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), "401"),
        (format!("GET /store/v1/list HTTP/1.1\r\nhost: x\r\n{long}{auth}\r\n"), "431"),
        (format!("POST /store/v1/txn HTTP/1.1\r\nhost: x\r\n{auth}content-length: 3\r\n\r\n[1]"), "422"),
        (format!("GET /store/v1/nothing HTTP/1.1\r\nhost: x\r\n{auth}\r\n"), "404"),
        (
            format!(
                "POST /store/v1/lease/x/keepalive HTTP/1.1\r\nhost: x\r\n{auth}content-length: 0\r\n\r\n"
            ),
            "400",
        ),
        (
            format!("POST /store/v1/txn HTTP/1.1\r\nhost: x\r\n{auth}content-length: 99999999999\r\n\r\n"),
            "413",
        ),
    ];
    for (request, status) in bodies {
        let mut stream = TcpStream::connect(&subject.addr).await.unwrap();
        // A server that has heard enough may close before all was said.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.ends_with(status), "{answer} for {}", &request[..request.len().min(60)]);
    }
    assert_eq!(subject.local.store.status().await.unwrap().rev, Rev(0));
}
