//! **Effect.** What every engine must do with transactions and lists.

use futures_util::future::join_all;
use mesh_core::kv::{Event, InvalidTxn, LeaseId, MAX_BYTES, MAX_OPS, MAX_VALUE, Op, Rev, Txn, TxnOutcome};

use super::{Subject, commit, leased, listed, next_events, put};
use crate::store::StoreError;

/// Of fifty who claim one thing at once, one gets it, and the others are told who.
pub async fn claims_are_given_once(subject: &impl Subject) {
    let store = subject.store();
    for round in 0..5 {
        let key = format!("claim/vni/{round}");
        let claims = join_all((0..50).map(|n| {
            let mut txn = Txn::default();
            txn.claim(key.clone(), format!("owner-{n}"));
            txn.put(format!("record/{round}/{n}"), "x");
            store.txn(txn)
        }));
        let mut winner = None;
        let mut conflicts = Vec::new();
        for (n, outcome) in claims.await.into_iter().enumerate() {
            match outcome.expect("an outcome") {
                TxnOutcome::Committed { .. } => assert_eq!(winner.replace(n), None, "{key} was given twice"),
                TxnOutcome::Conflict { found, .. } => conflicts.push(found),
                TxnOutcome::Unknown { why } => panic!("nothing failed, so all is known: {why}"),
            }
        }
        let owner = format!("owner-{}", winner.expect("one gets it"));
        assert_eq!(conflicts.len(), 49);
        assert!(conflicts.iter().all(|found| found.len() == 1 && *found[0].value == *owner));
        assert_eq!(*listed(&*store, &key).await[&*key].value, *owner);
        assert_eq!(listed(&*store, &format!("record/{round}/")).await.len(), 1, "losers write nothing");
    }
}

/// A write under a condition on the revision happens only if nobody wrote in between; 0 means absent.
pub async fn compare_and_set(subject: &impl Subject) {
    let store = subject.store();
    let guarded = |value: &str, rev| {
        let mut txn = put("k", value);
        txn.unchanged("k", rev);
        store.txn(txn)
    };
    let Ok(TxnOutcome::Committed { rev: first }) = guarded("1", Rev(0)).await else { panic!("0 is absent") };
    let Ok(TxnOutcome::Conflict { rev, found }) = guarded("again", Rev(0)).await else {
        panic!("it is there")
    };
    assert_eq!((rev, &*found[0].value, found[0].modified), (first, "1", first));
    let Ok(TxnOutcome::Committed { rev: second }) = guarded("2", first).await else { panic!("unchanged") };
    assert!(matches!(guarded("3", first).await, Ok(TxnOutcome::Conflict { .. })));
    let kv = &listed(&*store, "k").await["k"];
    assert_eq!((&*kv.value, kv.created, kv.modified), ("2", first, second));

    // Forty increments under compare-and-set, none lost.
    let increment = || async {
        loop {
            let kv = listed(&*store, "n").await.get("n").cloned();
            let (value, rev) = kv.map_or((0, Rev(0)), |kv| (kv.value.parse().unwrap_or(0), kv.modified));
            let mut txn = put("n", &(value + 1).to_string());
            txn.unchanged("n", rev);
            if matches!(store.txn(txn).await, Ok(TxnOutcome::Committed { .. })) {
                return;
            }
        }
    };
    join_all((0..8).map(|_| async {
        for _ in 0..5 {
            increment().await;
        }
    }))
    .await;
    assert_eq!(&*listed(&*store, "n").await["n"].value, "40");
}

/// Conditions on several keys: all or nothing, and a watch sees all writes of a revision together.
pub async fn transactions_are_whole(subject: &impl Subject) {
    let store = subject.store();
    let mut watch = store.watch("", Rev(0)).await.expect("a watch");
    let first = commit(&*store, put("b", "old")).await;
    let mut txn = Txn::default();
    txn.claim("a", "1");
    txn.claim("b", "1");
    assert!(matches!(store.txn(txn).await, Ok(TxnOutcome::Conflict { .. })));
    assert_eq!(listed(&*store, "a").await.len(), 0, "nothing of it was written");

    let mut txn = Txn::default();
    for n in 0..MAX_OPS - 1 {
        txn.put(format!("many/{n}"), n.to_string());
    }
    txn.delete("b");
    let second = commit(&*store, txn).await;
    assert_eq!(second, Rev(first.0 + 1), "a refused transaction takes no revision");
    assert_eq!(next_events(&mut watch).await.rev, first);
    let whole = next_events(&mut watch).await;
    assert_eq!((whole.rev, whole.events.len()), (second, MAX_OPS));
    assert!(whole.events.contains(&Event::Delete("b".to_owned())));
}

/// While others write pairs, every list has both of a pair, equal, and at no revision beyond its own.
pub async fn lists_are_at_one_revision(subject: &impl Subject) {
    let store = subject.store();
    let writes = async {
        for n in 0..200 {
            let mut txn = put("pair/a", &n.to_string());
            txn.put("pair/b", n.to_string());
            commit(&*store, txn).await;
        }
    };
    let lists = async {
        let mut before = Rev(0);
        for _ in 0..100 {
            let listing = store.list("pair/").await.expect("a list");
            assert!(listing.rev >= before, "lists go forward");
            before = listing.rev;
            assert!(listing.kvs.is_empty() || listing.kvs.len() == 2);
            assert!(
                listing.kvs.windows(2).all(|kvs| kvs[0].value == kvs[1].value && kvs[0].key < kvs[1].key)
            );
            assert!(listing.kvs.iter().all(|kv| kv.modified <= listing.rev));
        }
    };
    tokio::join!(writes, lists);
    let status = store.status().await.expect("a status");
    let listing = store.list("").await.expect("a list");
    assert_eq!((status.rev, &status.cluster), (listing.rev, &listing.cluster));
    assert!(!listing.cluster.is_empty());
}

/// What is no transaction is refused with the reason, and nothing of it is written.
pub async fn nonsense_writes_nothing(subject: &impl Subject) {
    let store = subject.store();
    let before = store.status().await.expect("a status").rev;
    let mut twice = put("k", "1");
    twice.delete("k");
    assert_eq!(store.txn(twice).await, Err(InvalidTxn::Twice("k".to_owned()).into()));
    let many = (0..=MAX_OPS).map(|n| Op::Delete(n.to_string())).collect();
    let many = Txn { compares: vec![], ops: many };
    assert_eq!(store.txn(many).await, Err(InvalidTxn::TooLarge(MAX_OPS + 1).into()));
    for wrong in [put("", "v"), put(&"k".repeat(2000), "v"), put("k", &"v".repeat(MAX_VALUE + 1))] {
        let refused = store.txn(wrong).await;
        assert!(matches!(refused, Err(StoreError::Invalid(InvalidTxn::Key { .. }))), "{refused:?}");
    }
    let mut heavy = Txn::default();
    for n in 0..5 {
        heavy.put(format!("{n}"), "v".repeat(MAX_BYTES / 4 - 8));
    }
    assert!(matches!(store.txn(heavy).await, Err(StoreError::Invalid(InvalidTxn::TooHeavy(_)))));
    let unleased = Txn { compares: vec![], ops: vec![leased("k", LeaseId(12_345))] };
    assert_eq!(store.txn(unleased).await, Err(InvalidTxn::UnknownLease(LeaseId(12_345)).into()));
    let listing = store.list("").await.expect("a list");
    assert_eq!((listing.rev, listing.kvs.len()), (before, 0));
}

/// Lists and watches of a prefix show its keys, byte by byte, and no others.
pub async fn prefixes_are_kept_apart(subject: &impl Subject) {
    let store = subject.store();
    let odd = "p/ü&=?#%+ x";
    let keys = ["p", "p/", "p/a", "p/b/c", "p0", "q", odd];
    let rev = Rev(store.status().await.expect("a status").rev.0);
    for key in keys {
        commit(&*store, put(key, key)).await;
    }
    for prefix in ["", "p", "p/", "p/b", odd, "none"] {
        let mut expected: Vec<_> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
        let mut watch = store.watch(prefix, rev).await.expect("a watch");
        for key in &expected {
            let batch = next_events(&mut watch).await;
            assert_eq!(batch.events.iter().map(Event::key).collect::<Vec<_>>(), [*key]);
        }
        expected.sort();
        let listing = store.list(prefix).await.expect("a list");
        assert_eq!(listing.kvs.iter().map(|kv| &*kv.key).collect::<Vec<_>>(), expected, "in order");
    }
}

/// A key that was removed and written again was created anew; a rewrite keeps when it was created.
pub async fn a_key_that_comes_back_is_new(subject: &impl Subject) {
    let store = subject.store();
    let first = commit(&*store, put("k", "1")).await;
    let second = commit(&*store, put("k", "2")).await;
    let kv = listed(&*store, "k").await["k"].clone();
    assert_eq!((kv.created, kv.modified), (first, second));
    let mut gone = Txn::default();
    gone.delete("k");
    commit(&*store, gone).await;
    let mut again = Txn::default();
    again.claim("k", "3");
    let third = commit(&*store, again).await;
    let kv = listed(&*store, "k").await["k"].clone();
    assert_eq!((kv.created, kv.modified, &*kv.value), (third, third, "3"));
}

/// A transaction that changes nothing commits at the revision there is.
pub async fn nothing_changed_is_no_revision(subject: &impl Subject) {
    let store = subject.store();
    let rev = commit(&*store, put("k", "1")).await;
    let mut nothing = Txn::default();
    nothing.delete("none");
    nothing.compares.push(mesh_core::kv::Compare::Exists("k".to_owned()));
    assert_eq!(commit(&*store, nothing).await, rev);
    assert_eq!(store.status().await.expect("a status").rev, rev);
}

/// The largest values there may be, with characters that need escaping, come back as they were.
pub async fn large_values_are_kept(subject: &impl Subject) {
    let store = subject.store();
    let rev = store.status().await.expect("a status").rev;
    let values = ["v".repeat(MAX_VALUE), "\"\\\n\u{1}ü".repeat(MAX_VALUE / 6)];
    let mut watch = store.watch("", rev).await.expect("a watch");
    for value in &values {
        commit(&*store, put("big", value)).await;
        assert!(listed(&*store, "big").await["big"].value[..] == *value, "listed as written");
        let batch = next_events(&mut watch).await;
        assert!(
            matches!(&batch.events[..], [Event::Put(kv)] if kv.value[..] == *value),
            "watched as written"
        );
    }
}
