//! **Effect.** The node's sign of life: what it has applied and what is wrong with it, under a lease.
//!
//! Others wait for it before they count on a change; nobody takes its loss alone for a death.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::change::{self, Fresh, Me};
use mesh_core::kv::{LeaseId, Op, Txn, TxnOutcome};
use mesh_core::liveness::Verdict;
use mesh_core::model::{Live, NodeId, RunFailure, Snapshot, fnv64};
use mesh_core::records;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::control::{Control, now, random};
use crate::dns::Referrals;
use crate::pki::Tls;
use crate::status::Status;
use crate::store::{Store, StoreError};
use crate::tasks::Told;

/// How long a sign of life lasts: longer than any pause of a store that is still sound.
const TTL: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(3);
/// How long a node without a sign of life holds up what was given back.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bursts of rounds make one report.
const GATHER: Duration = Duration::from_millis(20);
/// Every node hears of every report. Of more nodes than [`FEW`] each has so much time for itself, so that there are no
/// more than a hundred in a second, however many nodes apply the same change.
const SHARE: Duration = Duration::from_millis(10);
/// So few need not take turns.
const FEW: usize = 16;

/// Reports until told to stop. Also frees what was given back and says who is dead for
/// all, which one node of a mesh does: `janitor` says that it
/// is this one, whoever else there is.
pub async fn run(
    control: Control,
    store: Arc<dyn Store>,
    me: watch::Receiver<Option<Me>>,
    (mut told, referrals): (watch::Receiver<Told>, Referrals),
    janitor: bool,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
) {
    let mut statuses = control.statuses();
    let mut timer = tokio::time::interval(RENEW);
    let mut joined = me.clone();
    let mut lease = None;
    let mut released = BTreeMap::new();
    let mut reported = None;
    let mut due = None;
    loop {
        let renew = tokio::select! {
            () = stop.cancelled() => return,
            changed = statuses.changed() => {
                if changed.is_err() {
                    return;
                }
                let after = || gather(control.node(), control.world().nodes.len());
                due.get_or_insert_with(|| tokio::time::Instant::now() + after());
                continue;
            }
            () = until(due) => {
                due = None;
                false
            }
            changed = joined.changed() => {
                if changed.is_err() {
                    return;
                }
                false
            }
            changed = told.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(GATHER).await;
                false
            }
            _ = timer.tick() => true,
        };
        let Some(me) = me.borrow().clone() else { continue };
        let mut live = sign(&control.world(), &me, &statuses.borrow_and_update(), &told.borrow_and_update());
        live.referred = referrals.valid();
        live.authority = tls.as_ref().map_or_else(String::new, |tls| tls.me().issuer);
        if due.is_some() {
            // Its turn is still to come.
            live = reported.clone().unwrap_or(live);
        }
        if !renew && reported.as_ref() == Some(&live) {
            continue;
        }
        // Someone or something may have removed it; the owner puts it back.
        let there = control.world().live.contains_key(&me.id);
        let same = reported.as_ref() == Some(&live) && there;
        match report(store.as_ref(), &me, &live, &mut lease, renew, same).await {
            Ok(()) => reported = Some(live),
            Err(error) => {
                debug!("cannot report: {error}");
                (lease, reported) = (None, None);
            }
        }
        if renew && (janitor || change::is_first(&control.world(), &me.id)) {
            let txn = change::janitor(&control.world(), &overdue(&control.world(), &mut released));
            if !txn.ops.is_empty()
                && let Err(error) = store.txn(txn).await
            {
                debug!("cannot free what was given back: {error}");
            }
            agree(&control, store.as_ref()).await;
        }
    }
}

/// Writes down who is dead for all.
async fn agree(control: &Control, store: &dyn Store) {
    let txn = change::verdicts(&control.world(), Fresh { id: random(), now: now() });
    if !txn.ops.is_empty()
        && let Err(error) = store.txn(txn).await
    {
        debug!("cannot say who is dead: {error}");
    }
}

/// How long a node waits before it reports: in a large mesh all learn of a change at once, and each waits for its turn.
fn gather(node: &NodeId, nodes: usize) -> Duration {
    let all = SHARE.saturating_mul(u32::try_from(nodes.saturating_sub(FEW)).unwrap_or(u32::MAX));
    let turn = fnv64(node.as_str().as_bytes()) % 1024;
    GATHER + all.mul_f64(turn as f64 / 1024.0)
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Claims that were given back so long ago that a node without a sign of life no longer holds them up. By our
/// own clock: that of the node which released them may say anything.
fn overdue(world: &Snapshot, released: &mut BTreeMap<String, Instant>) -> BTreeSet<String> {
    let now = Instant::now();
    let waiting = world.claims.iter().filter(|(_, held)| held.claim.released.is_some());
    let waiting: BTreeSet<String> = waiting.map(|(key, _)| key.to_string()).collect();
    released.retain(|key, _| waiting.contains(key));
    for key in waiting {
        released.entry(key).or_insert(now);
    }
    released.iter().filter(|(_, since)| now - **since > PATIENCE).map(|(key, _)| key.clone()).collect()
}

fn sign(world: &Snapshot, me: &Me, status: &Status, told: &Told) -> Live {
    let planes = status.planes.iter().flat_map(|(name, plane)| {
        plane.last.errors.iter().map(move |(object, error)| format!("{name}: {object}: {error}"))
    });
    let plan = status.problems.iter().map(|problem| format!("{}: {}", problem.about, problem.message));
    let commands = told.failures.iter().filter_map(|(id, failure)| {
        let service = world.services.get(id)?;
        let RunFailure { version: _, count, message } = failure;
        Some(format!("service {}: its command does not run (tried {count} times): {message}", service.name))
    });
    let asked = world.verification.as_ref();
    let silent = status.silent.nodes.iter().filter(|(_, verdict)| **verdict == Verdict::Dead);
    Live {
        epoch: me.epoch,
        applied: status.applied,
        problems: planes.chain(plan).chain(commands).take(20).collect(),
        connections: told.connections.clone(),
        failures: told.failures.clone(),
        referred: BTreeSet::new(),
        silent: silent.map(|(id, _)| id.clone()).collect(),
        heard: status.silent.heard.clone(),
        authority: String::new(),
        verified: status
            .verified
            .clone()
            .filter(|verified| asked.is_some_and(|asked| asked.id == verified.id)),
    }
}

async fn report(
    store: &dyn Store,
    me: &Me,
    live: &Live,
    lease: &mut Option<LeaseId>,
    renew: bool,
    same: bool,
) -> Result<(), StoreError> {
    let id = match *lease {
        Some(id) => id,
        None => *lease.insert(store.lease(TTL).await?),
    };
    if renew {
        store.keep_alive(id).await?;
    }
    if same {
        return Ok(());
    }
    let put = Op::Put { key: records::live(&me.id), value: records::to_json(live), lease: Some(id) };
    match store.txn(Txn { compares: Vec::new(), ops: vec![put] }).await? {
        TxnOutcome::Committed { .. } => Ok(()),
        TxnOutcome::Conflict { .. } => Err(StoreError::LeaseGone(id)),
        TxnOutcome::Unknown { why } => Err(StoreError::Unavailable { at: "its address".to_owned(), why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_take_turns_where_there_are_many() {
        let of = |nodes: usize| {
            let ids = (0..nodes).map(|n| NodeId::from_random((n as u128).to_be_bytes()));
            let mut after: Vec<_> = ids.map(|id| gather(&id, nodes)).collect();
            after.sort();
            after
        };
        assert_eq!(of(10).last(), Some(&GATHER));
        let many = of(1000);
        assert!(many[999] < GATHER + Duration::from_secs(10));
        // No second has more than its share by much.
        assert!(
            many.iter().filter(|after| **after < GATHER + Duration::from_secs(1)).count() < 150,
            "{many:?}"
        );
    }
}
