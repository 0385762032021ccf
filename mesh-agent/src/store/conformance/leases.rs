//! **Effect.** What every engine must do with leases.

use std::time::{Duration, Instant};

use mesh_core::kv::{Event, InvalidTxn, LeaseId, Rev, Txn};

use super::{Subject, commit, leased, listed, next_events, put};
use crate::store::StoreError;

/// A lease that nobody keeps ends, not early and not much too late, and its keys go in one revision.
pub async fn a_lease_takes_all_its_keys_at_once(subject: &impl Subject) {
    let store = subject.store();
    let lease = store.lease(Duration::from_secs(1)).await.expect("a lease");
    let mut txn = put("stays", "1");
    txn.ops.extend((0..3).map(|n| leased(&format!("live/{n}"), lease)));
    let rev = commit(&*store, txn).await;
    assert_eq!(listed(&*store, "live/0").await["live/0"].lease, Some(lease));
    commit(&*store, put("live/2", "no longer under it")).await;
    let granted = Instant::now();
    let mut watch = store.watch("", Rev(rev.0 + 1)).await.expect("a watch");
    let gone = next_events(&mut watch).await;
    let after = granted.elapsed();
    let mut keys: Vec<_> = gone.events.iter().map(Event::key).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["live/0", "live/1"], "all at once");
    assert!(after > Duration::from_millis(500) && after < Duration::from_secs(6), "{after:?}");
    let left = listed(&*store, "").await;
    assert_eq!(left.keys().map(|key| &**key).collect::<Vec<_>>(), ["live/2", "stays"]);
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseGone(lease)));
    let late = Txn { compares: vec![], ops: vec![leased("live/9", lease)] };
    assert_eq!(store.txn(late).await, Err(InvalidTxn::UnknownLease(lease).into()));
}

/// A lease that is kept alive outlives its time, and then still ends.
pub async fn a_lease_that_is_kept_stays(subject: &impl Subject) {
    let store = subject.store();
    let lease = store.lease(Duration::from_secs(2)).await.expect("a lease");
    let other = store.lease(Duration::from_secs(60)).await.expect("a lease");
    assert_ne!(lease, other);
    let rev = commit(&*store, Txn { compares: vec![], ops: vec![leased("live/n", lease)] }).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        store.keep_alive(lease).await.expect("it is still there");
    }
    assert_eq!(listed(&*store, "live/").await.len(), 1);
    let mut watch = store.watch("live/", rev).await.expect("a watch");
    assert_eq!(next_events(&mut watch).await.events, [Event::Delete("live/n".to_owned())]);
    let never = LeaseId(u64::MAX >> 2);
    assert_eq!(store.keep_alive(never).await, Err(StoreError::LeaseGone(never)));
}
