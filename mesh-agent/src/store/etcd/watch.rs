//! **Effect.** Watches: a stream of etcd's, asked again and again how far it has come, so that one that has fallen
//! silent is noticed. It ends with its first trouble; to resume is the watcher's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures_util::stream;
use mesh_core::kv::{Batch, Rev};
use tokio::time::{Instant, sleep_until, timeout};

use super::failure::Failure;
use super::keys::{Keys, rev, revision};
use super::link::{Link, PATIENCE};
use super::order::Order;
use super::session::{Doubt, Session};
use crate::store::{Batches, StoreError, WatchEnd};

/// How often a member is asked how far the watch has come.
const PERIOD: Duration = Duration::from_millis(400);
/// How long it may leave that without any answer.
const SILENCE: Duration = Duration::from_millis(1200);

/// Everything under a prefix that comes after a revision.
pub(super) async fn open(link: &Arc<Link>, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
    let session = link.any(Instant::now() + PATIENCE).await?;
    let ended = |end| -> Result<Batches, StoreError> { Ok(Box::pin(stream::iter([Err(end)]))) };
    match &session.doubt {
        Some(Doubt::AnotherMesh { .. }) => return ended(WatchEnd::WrongCluster),
        Some(Doubt::WentBack { found, .. }) => return ended(WatchEnd::WentBack(*found)),
        None => {}
    }
    let opened = async {
        let now = newest(&session, link.keys()).await?;
        if now < after {
            return Ok(Err(WatchEnd::WentBack(now)));
        }
        remembers(&session, link.keys(), after).await?;
        let (asks, answers) = begin(&session, link.keys(), prefix, after).await?;
        let (link, session) = (Arc::clone(link), Arc::clone(&session));
        Ok(Ok(Watcher::new(link, session, asks, answers, after, now)))
    };
    match opened.await {
        Ok(Ok(watcher)) => Ok(watcher.stream()),
        Ok(Err(end)) => ended(end),
        Err(Failure::Compacted) => ended(WatchEnd::Compacted(after)),
        Err(Failure::Refused(error)) => Err(error),
        Err(failure) => {
            let why = failure.why();
            link.lost(&session, &why);
            ended(WatchEnd::Lost(why))
        }
    }
}

/// The store's newest revision, which a member that lags learns from the others.
pub(super) async fn newest(session: &Session, keys: &Keys) -> Result<Rev, Failure> {
    let (mut kv, key) = (session.kv(), keys.identity());
    let options = GetOptions::new().with_count_only();
    let answer = session.ask(0, async move { kv.get(key, Some(options)).await }).await?;
    Ok(rev(answer.header().map_or(0, |header| header.revision())))
}

/// Whether history still holds all that came after a revision. etcd says so of a watch that it begins, but before
/// 3.4.36 and 3.5.17 it leaves out what was removed at the very revision that was compacted.
async fn remembers(session: &Session, keys: &Keys, after: Rev) -> Result<(), Failure> {
    if after == Rev(0) {
        return Ok(());
    }
    let (mut kv, key) = (session.kv(), keys.identity());
    let options = GetOptions::new().with_count_only().with_revision(revision(after));
    session.ask(0, async move { kv.get(key, Some(options)).await }).await?;
    Ok(())
}

async fn begin(
    session: &Session,
    keys: &Keys,
    prefix: &str,
    after: Rev,
) -> Result<(WatchRequestSender, WatchResponseStream), Failure> {
    let options = WatchOptions::new().with_prefix().with_start_revision(revision(Rev(after.0 + 1)));
    let (mut watches, key) = (session.watches(), keys.record(prefix));
    let stream = session.ask(0, async move { watches.watch(key, Some(options)).await }).await?;
    Ok(stream.split())
}

struct Watcher {
    link: Arc<Link>,
    session: Arc<Session>,
    asks: WatchRequestSender,
    answers: WatchResponseStream,
    order: Order,
    after: Rev,
    ready: VecDeque<Batch>,
    /// When to ask next.
    next: Instant,
    /// When the oldest question was asked that nothing came after.
    asked: Option<Instant>,
    /// Whether it is known that nothing was compacted away before it was told.
    whole: bool,
    ended: bool,
}

impl Watcher {
    fn new(
        link: Arc<Link>,
        session: Arc<Session>,
        asks: WatchRequestSender,
        answers: WatchResponseStream,
        after: Rev,
        now: Rev,
    ) -> Self {
        // Where nothing has come after, nothing is missing.
        let ready = if now == after {
            VecDeque::from([Batch { rev: now, events: Vec::new() }])
        } else {
            VecDeque::new()
        };
        Self {
            link,
            session,
            asks,
            answers,
            order: Order::after(after),
            after,
            ready,
            next: Instant::now(),
            asked: None,
            whole: false,
            ended: false,
        }
    }

    fn stream(self) -> Batches {
        Box::pin(stream::unfold(self, |mut watcher| async move {
            if watcher.ended {
                return None;
            }
            let next = watcher.next().await;
            watcher.ended = next.is_err();
            Some((next, watcher))
        }))
    }

    async fn next(&mut self) -> Result<Batch, WatchEnd> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.link.saw(batch.rev);
                return Ok(batch);
            }
            let dead = self.asked.map(|asked| asked + SILENCE);
            // What has come counts before it is looked whether something is missing: whoever reads late was not
            // left without an answer.
            tokio::select! {
                biased;
                message = self.answers.message() => self.take(message).await?,
                () = self.session.gone() => return Err(WatchEnd::Lost("its member was given up".to_owned())),
                () = sleep_until(dead.unwrap_or(self.next)), if dead.is_some() => {
                    return Err(self.lost(format!("it did not answer for {:.1} s", SILENCE.as_secs_f64())));
                }
                () = sleep_until(self.next) => self.ask().await?,
            }
        }
    }

    /// Asks how far the watch has come.
    async fn ask(&mut self) -> Result<(), WatchEnd> {
        let now = Instant::now();
        self.next = now + PERIOD;
        self.asked.get_or_insert(now);
        match timeout(PERIOD, self.asks.request_progress()).await {
            Ok(Err(error)) => Err(self.lost(error.to_string())),
            // Nobody takes the question: the silence will tell.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    async fn take(&mut self, message: Result<Option<WatchResponse>, Error>) -> Result<(), WatchEnd> {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Err(self.lost("the member closed the watch".to_owned())),
            Err(error) => {
                let why = Failure::of(self.session.at(), &error).why();
                return Err(self.lost(why));
            }
        };
        self.asked = None;
        if message.canceled() {
            return Err(match message.compact_revision() {
                0 => self.lost(format!("the member ended the watch: {}", message.cancel_reason())),
                compacted => WatchEnd::Compacted(rev(compacted)),
            });
        }
        let events: Vec<_> =
            message.events().iter().filter_map(|event| self.link.keys().event(event)).collect();
        if !events.is_empty() {
            self.ready.extend(self.order.events(events)?);
        } else if !message.created() {
            let now = message.header().map_or(0, |header| header.revision());
            if let Some(beat) = self.order.progress(rev(now)) {
                self.check_whole().await?;
                self.ready.push_back(beat);
            }
        }
        Ok(())
    }

    /// Once, when the watch has caught up: nothing was compacted between our question and its beginning.
    async fn check_whole(&mut self) -> Result<(), WatchEnd> {
        if self.whole {
            return Ok(());
        }
        match remembers(&self.session, self.link.keys(), self.after).await {
            Ok(()) => self.whole = true,
            Err(Failure::Compacted) => return Err(WatchEnd::Compacted(self.after)),
            Err(failure) => return Err(self.lost(failure.why())),
        }
        Ok(())
    }

    fn lost(&self, why: String) -> WatchEnd {
        self.link.lost(&self.session, &why);
        WatchEnd::Lost(why)
    }
}
