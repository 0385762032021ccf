//! **Effect.** Transactions: ours as etcd's, and what came of them.

use std::collections::BTreeSet;
use std::time::Duration;

use etcd_client::{Compare as Condition, CompareOp, PutOptions, TxnOp, TxnOpResponse, TxnResponse};
use mesh_core::kv::{Compare, InvalidTxn, KeyValue, LeaseId, Op, Rev, Txn, TxnOutcome};
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::keys::{Keys, rev, revision};
use super::link::{Link, PATIENCE};
use super::marks::{Mark, Marks, Verdict};
use super::session::Session;
use crate::store::StoreError;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs a transaction, with as many tries as it takes and the time allows. What is tried again did not happen before.
pub(super) async fn run(link: &Link, marks: &Marks, txn: &Txn) -> Result<TxnOutcome, StoreError> {
    txn.check()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let session = link.own(deadline).await?;
        let why = match attempt(link, marks, &session, txn).await {
            Attempt::Done(result) => return result,
            Attempt::Again(why) => why,
            Attempt::Lost(why) => {
                link.lost(&session, &why);
                why
            }
        };
        if Instant::now() >= deadline {
            return Err(link.unavailable(why));
        }
        sleep(PAUSE).await;
    }
}

/// What came of one try.
enum Attempt {
    Done(Result<TxnOutcome, StoreError>),
    /// It did not happen.
    Again(String),
    /// It did not happen, and the member is no good.
    Lost(String),
}

async fn attempt(link: &Link, marks: &Marks, session: &Session, txn: &Txn) -> Attempt {
    // One that only removes may leave the revision as it is, which a mark would not.
    let mut mark = None;
    if txn.ops.iter().any(|op| matches!(op, Op::Put { .. })) {
        mark = match marks.take(session).await {
            Ok(mark) => Some(mark),
            Err(Failure::Refused(error)) => return Attempt::Done(Err(error)),
            Err(failure) => return Attempt::Lost(failure.why()),
        };
    }
    let keys = link.keys();
    let answer = match render(txn, mark.as_ref(), keys) {
        Ok(request) => {
            let mut kv = session.kv();
            session.ask(weight(txn), async move { kv.txn(request).await }).await
        }
        Err(lease) => return Attempt::Done(Err(InvalidTxn::UnknownLease(lease).into())),
    };
    let attempt = match answer {
        Ok(answer) => answered(link, txn, &mut mark, &answer),
        Err(Failure::Refused(error)) => Attempt::Done(Err(error)),
        Err(Failure::Unsure(why)) => unsure(link, marks, session, txn, &mut mark, why).await,
        Err(Failure::NoLease) => no_lease(marks, session, txn, &mut mark).await,
        Err(failure) => Attempt::Lost(failure.why()),
    };
    if let Some(mark) = mark {
        marks.give_back(mark).await;
    }
    attempt
}

/// Takes an answer apart. A mark that is not given back is taken out of its place.
fn answered(link: &Link, txn: &Txn, mark: &mut Option<Mark>, answer: &TxnResponse) -> Attempt {
    let now = rev(answer.header().map_or(0, |header| header.revision()));
    link.saw(now);
    if answer.succeeded() {
        if let Some(mark) = mark {
            mark.written(now);
        }
        return Attempt::Done(Ok(TxnOutcome::Committed { rev: now }));
    }
    let found: Vec<Option<KeyValue>> = answer
        .op_responses()
        .into_iter()
        .map(|answer| match answer {
            TxnOpResponse::Get(got) => got.kvs().first().and_then(|kv| link.keys().read(kv)),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        })
        .collect();
    let failed: Vec<_> =
        txn.compares.iter().zip(found).filter(|(compare, found)| !holds(compare, found.as_ref())).collect();
    if failed.is_empty() {
        // It was the condition on the mark: its lease ended.
        *mark = None;
        return Attempt::Again("its mark is not as it was".to_owned());
    }
    let found = failed.into_iter().filter_map(|(_, found)| found).collect();
    Attempt::Done(Ok(TxnOutcome::Conflict { rev: now, found }))
}

/// No answer came.
async fn unsure(
    link: &Link,
    marks: &Marks,
    session: &Session,
    txn: &Txn,
    mark: &mut Option<Mark>,
    why: String,
) -> Attempt {
    link.lost(session, &why);
    let verdict = match mark {
        Some(mark) => marks.resolve(link, mark).await,
        None if txn.ops.is_empty() => Verdict::Never,
        // To remove something twice is no harm, and the caller looks.
        None => Verdict::Unknown("it only removes, which leaves no mark".to_owned()),
    };
    match verdict {
        Verdict::Happened(rev) => {
            link.saw(rev);
            Attempt::Done(Ok(TxnOutcome::Committed { rev }))
        }
        Verdict::Never => Attempt::Again(why),
        Verdict::Unknown(unresolved) => {
            *mark = None;
            let why = format!("the store at {}: {why}; {unresolved}", session.at());
            Attempt::Done(Ok(TxnOutcome::Unknown { why }))
        }
    }
}

/// A lease is missing: one of the caller's, or that of the marks.
async fn no_lease(marks: &Marks, session: &Session, txn: &Txn, mark: &mut Option<Mark>) -> Attempt {
    for lease in txn.leases().collect::<BTreeSet<_>>() {
        let mut leases = session.leases();
        let id = i64::try_from(lease.0).unwrap_or(-1);
        match session.ask(0, async move { leases.time_to_live(id, None).await }).await {
            Ok(left) if left.ttl() <= 0 => {
                return Attempt::Done(Err(InvalidTxn::UnknownLease(lease).into()));
            }
            Ok(_) => {}
            Err(Failure::Refused(error)) => return Attempt::Done(Err(error)),
            Err(failure) => return Attempt::Lost(failure.why()),
        }
    }
    if let Some(mark) = mark.take() {
        marks.forget(mark).await;
    }
    Attempt::Again("the lease of its mark has ended".to_owned())
}

/// The transaction in etcd's words; `Err` names a lease that no etcd could have.
fn render(txn: &Txn, mark: Option<&Mark>, keys: &Keys) -> Result<etcd_client::Txn, LeaseId> {
    let mut conditions: Vec<_> = txn.compares.iter().map(|compare| condition(compare, keys)).collect();
    let mut writes = txn.ops.iter().map(|op| write(op, keys)).collect::<Result<Vec<_>, _>>()?;
    conditions.extend(mark.map(|mark| mark.unchanged(keys)));
    writes.extend(mark.map(|mark| mark.happened(keys)));
    let reads: Vec<_> =
        txn.compares.iter().map(|compare| TxnOp::get(keys.record(compare.key()), None)).collect();
    Ok(etcd_client::Txn::new().when(conditions).and_then(writes).or_else(reads))
}

fn condition(compare: &Compare, keys: &Keys) -> Condition {
    let key = keys.record(compare.key());
    match compare {
        Compare::Absent(_) => Condition::create_revision(key, CompareOp::Equal, 0),
        Compare::Exists(_) => Condition::create_revision(key, CompareOp::Greater, 0),
        // That of an absent key is 0, as with us.
        Compare::Modified(_, rev) => Condition::mod_revision(key, CompareOp::Equal, revision(*rev)),
    }
}

fn write(op: &Op, keys: &Keys) -> Result<TxnOp, LeaseId> {
    Ok(match op {
        Op::Delete(key) => TxnOp::delete(keys.record(key), None),
        Op::Put { key, value, lease } => {
            let under = lease.map(|lease| i64::try_from(lease.0).map_err(|_| lease)).transpose()?;
            let options = under.map(|lease| PutOptions::new().with_lease(lease));
            TxnOp::put(keys.record(key), value.as_str(), options)
        }
    })
}

/// Whether a condition holds, by what was found.
fn holds(compare: &Compare, found: Option<&KeyValue>) -> bool {
    match compare {
        Compare::Absent(_) => found.is_none(),
        Compare::Exists(_) => found.is_some(),
        Compare::Modified(_, rev) => found.map_or(Rev(0), |kv| kv.modified) == *rev,
    }
}

/// About how many bytes it takes.
fn weight(txn: &Txn) -> usize {
    let ops = txn.ops.iter().map(|op| match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete(key) => key.len(),
    });
    ops.sum()
}
