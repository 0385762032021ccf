//! **Effect.** The one thread that writes to the local store.
//!
//! All transactions that wait are prepared one upon another, written in one commit, and only then shown and
//! answered. After a failed commit nobody knows what is on disk; so nothing is written any more, and memory
//! stays at what is known to be there.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use mesh_core::kv::{Batch, Group, InvalidTxn, KeyValue, LeaseId, Rev, Txn, TxnOutcome};
use tokio::sync::{oneshot, watch};

use super::Shared;
use super::disk::{Addition, Disk};
use super::leases::{Leases, TICK};
use crate::store::StoreError;

/// How many commands one commit carries at most.
const GROUP: usize = 512;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What is asked of the writer.
#[derive(Debug)]
pub(super) enum Command {
    Txn(Txn, Answer<TxnOutcome>),
    /// Seconds to live.
    Lease(u64, Answer<LeaseId>),
    KeepAlive(LeaseId, Answer<()>),
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Disk,
    pub(super) leases: Leases,
    pub(super) next_lease: u64,
    pub(super) commands: Receiver<Command>,
    pub(super) news: watch::Sender<Rev>,
}

/// What a transaction will be told once all is on disk.
type Prepared = Result<Result<Batch, Vec<KeyValue>>, InvalidTxn>;

impl Writer {
    /// Runs until nobody is left who could ask.
    pub(super) fn run(mut self) {
        loop {
            let mut commands = Vec::new();
            match self.commands.recv_timeout(TICK) {
                Ok(command) => commands.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            commands.extend(self.commands.try_iter().take(GROUP));
            self.leases.age(Instant::now());
            self.round(commands);
        }
    }

    fn round(&mut self, commands: Vec<Command>) {
        let mut txns = Vec::new();
        let mut grants = Vec::new();
        for command in commands {
            match command {
                // Whoever gave up waiting is told nothing and has nothing written: that is as good as too late.
                Command::Txn(_, answer) if answer.is_closed() => {}
                Command::Lease(_, answer) if answer.is_closed() => {}
                Command::Txn(txn, answer) => txns.push((txn, answer)),
                Command::Lease(seconds, answer) => {
                    grants.push((LeaseId(self.next_lease), seconds, answer));
                    self.next_lease += 1;
                }
                // Before expiry is looked at: what came in time counts, however slow the disk was.
                Command::KeepAlive(lease, answer) => {
                    let kept = self.leases.keep(lease);
                    let _ = answer.send(if kept { Ok(()) } else { Err(StoreError::LeaseGone(lease)) });
                }
            }
        }
        let ended = if self.shared.problem().is_some() { Vec::new() } else { self.leases.expired() };
        if txns.is_empty() && grants.is_empty() && ended.is_empty() {
            return;
        }

        let mut addition = Addition {
            granted: grants.iter().map(|(lease, seconds, _)| (*lease, *seconds)).collect(),
            ended,
            ..Addition::default()
        };
        let (answers, rev) = self.prepare(txns, &mut addition);
        if let Err(failed) = self.write(&addition) {
            refuse(&self.shared, failed, answers, grants);
            return;
        }
        self.show(addition);
        for (prepared, answer) in answers {
            let _ = answer.send(match prepared {
                Ok(Ok(rev)) => Ok(TxnOutcome::Committed { rev }),
                Ok(Err(found)) => Ok(TxnOutcome::Conflict { rev, found }),
                Err(invalid) => Err(invalid.into()),
            });
        }
        for (lease, _, answer) in grants {
            let _ = answer.send(Ok(lease));
        }
    }

    /// Decides on all transactions; what they write is put into the addition.
    fn prepare(&self, txns: Vec<(Txn, Answer<TxnOutcome>)>, addition: &mut Addition) -> (Vec<Waiting>, Rev) {
        let state = self.shared.state();
        let mut group = Group::of(&state);
        for lease in &addition.ended {
            addition.batches.push(group.revoke(*lease));
        }
        let mut answers = Vec::with_capacity(txns.len());
        for (txn, answer) in txns {
            let prepared: Prepared = group.txn(&txn);
            let told = prepared.map(|decided| {
                decided.map(|batch| {
                    let rev = batch.rev;
                    addition.batches.push(batch);
                    rev
                })
            });
            answers.push((told, answer));
        }
        addition.batches.retain(|batch| !batch.events.is_empty());
        addition.oldest = state.oldest();
        (answers, group.rev())
    }

    fn write(&self, addition: &Addition) -> Result<(), Failed> {
        if self.shared.problem().is_some() {
            return Err(Failed::Before);
        }
        if addition.batches.is_empty() && addition.granted.is_empty() && addition.ended.is_empty() {
            return Ok(());
        }
        self.disk.add(addition).map_err(|error| {
            let problem = format!(
                "writing failed, so nothing more is written ({error}); see to the disk and restart the agent"
            );
            tracing::error!(store = %self.disk.path.display(), %problem, "the store is read-only");
            self.shared.fail(&problem);
            Failed::Now
        })
    }

    /// Shows what is safe on disk.
    fn show(&mut self, addition: Addition) {
        let rev = {
            let mut state = self.shared.state_mut();
            for (lease, seconds) in addition.granted {
                state.grant(lease);
                self.leases.grant(lease, seconds);
            }
            for batch in addition.batches {
                state.install(batch);
            }
            for lease in addition.ended {
                state.forget(lease);
                self.leases.forget(lease);
            }
            state.rev()
        };
        self.shared.set_size(self.disk.size());
        self.news.send_if_modified(|seen| std::mem::replace(seen, rev) != rev);
    }
}

/// A transaction's decision, and who waits for it.
type Waiting = (Result<Result<Rev, Vec<KeyValue>>, InvalidTxn>, Answer<TxnOutcome>);

/// When writing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// Before: this time nothing was tried.
    Before,
    /// Just now: what was to be written may be there or not.
    Now,
}

/// Tells everyone that nothing was acknowledged.
fn refuse(
    shared: &Shared,
    failed: Failed,
    answers: Vec<Waiting>,
    grants: Vec<(LeaseId, u64, Answer<LeaseId>)>,
) {
    let why = shared.problem().unwrap_or_default();
    let unavailable = || StoreError::Unavailable { at: shared.at(), why: why.clone() };
    for (prepared, answer) in answers {
        let _ = answer.send(match prepared {
            Ok(Ok(_)) if failed == Failed::Now => Ok(TxnOutcome::Unknown { why: why.clone() }),
            // A conflict may be with what was in the very commit that failed; nothing of this one was tried.
            Ok(_) => Err(unavailable()),
            Err(invalid) => Err(invalid.into()),
        });
    }
    for (_, _, answer) in grants {
        let _ = answer.send(Err(unavailable()));
    }
}
