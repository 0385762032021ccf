//! **Effect.** Marks: how it is found out afterwards whether a transaction happened.
//!
//! Each transaction that writes also writes a mark, a key that nobody else writes, under the condition that the mark is
//! as it was. When no answer came, the mark is overwritten under the same condition: if that succeeds, the
//! transaction did not happen and never will, however long its request stays somewhere on the way; if not, the
//! mark says that it did. Marks are under a lease, so that they go when their writer does; a request that comes
//! even later is refused for want of the lease.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use mesh_core::kv::Rev;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failure::Failure;
use super::keys::{Keys, rev, revision};
use super::link::{Link, Whom};
use super::session::Session;

/// How long marks outlive their writer.
const TTL: Duration = Duration::from_secs(60);
/// When the lease is renewed, at the next transaction.
const RENEW: Duration = Duration::from_secs(20);

/// A mark that one transaction at a time may use.
#[derive(Debug)]
pub(super) struct Mark {
    lease: i64,
    number: u64,
    /// When it was last written; 0: never.
    last: Rev,
    /// Which transaction of this mark.
    turn: u64,
}

impl Mark {
    fn key(&self, keys: &Keys) -> String {
        keys.mark(self.lease, self.number)
    }

    /// The condition that it is as it was.
    pub(super) fn unchanged(&self, keys: &Keys) -> Compare {
        Compare::mod_revision(self.key(keys), CompareOp::Equal, revision(self.last))
    }

    /// The write that shows that the transaction happened.
    pub(super) fn happened(&self, keys: &Keys) -> TxnOp {
        self.write(keys, self.turn.to_string())
    }

    fn write(&self, keys: &Keys, value: String) -> TxnOp {
        TxnOp::put(self.key(keys), value, Some(PutOptions::new().with_lease(self.lease)))
    }

    /// Notes that it was written.
    pub(super) fn written(&mut self, rev: Rev) {
        self.last = rev;
        self.turn += 1;
    }
}

/// What became of a transaction whose answer did not come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It happened.
    Happened(Rev),
    /// It did not, and never will.
    Never,
    /// It cannot be found out.
    Unknown(String),
}

#[derive(Debug, Default)]
struct Pool {
    /// The lease that all are under, and when it was last renewed.
    lease: Option<(i64, Instant)>,
    made: u64,
    free: Vec<Mark>,
}

/// The marks of this process.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pool: Mutex<Pool>,
}

impl Marks {
    /// A mark for one transaction. Whoever does not give it back knows why: it is never used again.
    pub(super) async fn take(&self, session: &Session) -> Result<Mark, Failure> {
        let mut pool = self.pool.lock().await;
        let lease = match pool.lease {
            Some((lease, renewed)) if renewed.elapsed() < RENEW => lease,
            Some((lease, renewed)) if renewed.elapsed() < TTL => match keep_alive(session, lease).await {
                Err(Failure::NoLease) => grant(session, &mut pool).await?,
                kept => {
                    kept?;
                    pool.lease = Some((lease, Instant::now()));
                    lease
                }
            },
            Some(_) | None => grant(session, &mut pool).await?,
        };
        Ok(pool.free.pop().unwrap_or_else(|| {
            pool.made += 1;
            Mark { lease, number: pool.made, last: Rev(0), turn: 0 }
        }))
    }

    /// Makes a mark free for the next transaction.
    pub(super) async fn give_back(&self, mark: Mark) {
        let mut pool = self.pool.lock().await;
        if pool.lease.is_some_and(|(lease, _)| lease == mark.lease) {
            pool.free.push(mark);
        }
    }

    /// The lease of a mark is gone, and all its marks with it.
    pub(super) async fn forget(&self, mark: Mark) {
        let mut pool = self.pool.lock().await;
        if pool.lease.is_some_and(|(lease, _)| lease == mark.lease) {
            *pool = Pool::default();
        }
    }

    /// Finds out what became of the transaction that a mark was for, and sees to it that it stays so.
    pub(super) async fn resolve(&self, link: &Link, mark: &mut Mark) -> Verdict {
        let void = format!("{} void", mark.turn);
        let keys = link.keys();
        let txn = Txn::new()
            .when([mark.unchanged(keys)])
            .and_then([mark.write(keys, void.clone())])
            .or_else([TxnOp::get(mark.key(keys), None)]);
        let asked = link.ask(Whom::Own, |session| {
            let (mut kv, txn) = (session.kv(), txn.clone());
            async move { session.ask(0, async move { kv.txn(txn).await }).await }
        });
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(failure) => return Verdict::Unknown(failure.why()),
        };
        let now = rev(answer.header().map_or(0, |header| header.revision()));
        if answer.succeeded() {
            mark.written(now);
            return Verdict::Never;
        }
        let found = answer.op_responses().into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(got) => got.kvs().first().cloned(),
            TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
        });
        let Some(found) = found else {
            return Verdict::Unknown("its mark is gone with its lease".to_owned());
        };
        let at = rev(found.mod_revision());
        let verdict = match found.value() {
            value if value == mark.turn.to_string().as_bytes() => Verdict::Happened(at),
            // An earlier try to find out came through after all.
            value if value == void.as_bytes() => Verdict::Never,
            _ => return Verdict::Unknown("its mark was written by someone else".to_owned()),
        };
        mark.written(at);
        verdict
    }
}

async fn grant(session: &Session, pool: &mut Pool) -> Result<i64, Failure> {
    let mut leases = session.leases();
    let ttl = i64::try_from(TTL.as_secs()).unwrap_or(i64::MAX);
    let granted = session.ask(0, async move { leases.grant(ttl, None).await }).await?;
    *pool = Pool { lease: Some((granted.id(), Instant::now())), ..Pool::default() };
    Ok(granted.id())
}

/// Renews a lease. A stream of its own each time: one that is kept breaks whenever the members choose a leader.
pub(super) async fn keep_alive(session: &Session, lease: i64) -> Result<(), Failure> {
    let mut leases = session.leases();
    session.ask(0, async move { leases.keep_alive(lease).await }).await?;
    Ok(())
}
