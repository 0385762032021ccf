//! **Effect.** Looks at the node for all web pages that are open, and not at all while there is none.
//!
//! It looks once for all of them, and each takes the newest when it can: a slow one misses what is old, and holds up nobody.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::Stream;
use mesh_core::events::{Dated, Recent};
use mesh_core::model::TaskId;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::api::ApiState;
use crate::api::counters::look;
use crate::api::types::{EventMessage, Sum, WebRates, sums};

/// How many pages may be open.
const PAGES: usize = 64;
/// How often rates are told.
const TICK: Duration = Duration::from_secs(1);
/// How many of the last events a page is told when it begins.
const PAST: u64 = 200;
/// Of many changes in a row so many are told: one in that time.
const PAUSE: Duration = Duration::from_millis(100);

/// Where pages listen. Cheap to clone.
#[derive(Clone)]
pub struct Stage {
    told: watch::Sender<Told>,
    came: Arc<Notify>,
    places: Arc<Semaphore>,
}

/// What pages are told now; all share the text.
#[derive(Clone, Default)]
struct Told {
    state: Message,
    rates: Message,
    /// The agent ends.
    over: bool,
}

/// A server-sent event and its number among those of its kind; 0: there is none.
#[derive(Clone, Default)]
struct Message {
    number: u64,
    text: Bytes,
}

impl Default for Stage {
    fn default() -> Self {
        let (told, _) = watch::channel(Told::default());
        Self { told, came: Arc::default(), places: Arc::new(Semaphore::new(PAGES)) }
    }
}

impl Stage {
    /// What a page is told, until it goes or the agent ends; none: too many listen already.
    pub(super) fn listen(
        &self,
        events: watch::Receiver<Recent>,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + use<>> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let from = events.borrow().next().saturating_sub(PAST);
        let told = self.told.subscribe();
        let listener = Listener { told, state: 0, rates: 0, events, from, began: false, _place: place };
        self.came.notify_one();
        Some(futures_util::stream::unfold(listener, |mut listener| async {
            let text = listener.next().await?;
            Some((Ok(text), listener))
        }))
    }

    /// Looks for whoever listens, until told to stop.
    pub async fn run(self, state: ApiState, stop: CancellationToken) {
        stop.run_until_cancelled(self.look(state)).await;
        self.told.send_modify(|told| told.over = true);
    }

    async fn look(&self, state: ApiState) {
        let mut number = 0;
        loop {
            while self.told.receiver_count() == 0 {
                self.came.notified().await;
            }
            let mut eye = Eye { state: state.clone(), text: Bytes::new(), counted: None };
            let (mut worlds, mut statuses) = (state.control.worlds(), state.control.statuses());
            let mut tick = tokio::time::interval(TICK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.told.receiver_count() > 0 {
                let count = tokio::select! {
                    _ = tick.tick() => true,
                    () = changed(&mut worlds, &mut statuses) => false,
                    () = self.told.closed() => break,
                };
                let seen;
                (eye, seen) = eye.look(count).await;
                number += 1;
                self.told.send_modify(|told| {
                    let message = |text| Message { number, text };
                    told.state = seen.state.map_or_else(|| std::mem::take(&mut told.state), message);
                    told.rates = seen.rates.map_or_else(|| std::mem::take(&mut told.rates), message);
                });
            }
            // Who comes next must not see what was.
            self.told.send_replace(Told::default());
        }
    }
}

/// Waits for a change, and a little longer for those that follow.
async fn changed<A, B>(worlds: &mut watch::Receiver<A>, statuses: &mut watch::Receiver<B>) {
    tokio::select! {
        Ok(()) = worlds.changed() => {}
        Ok(()) = statuses.changed() => {}
        // The agent ends.
        else => std::future::pending().await,
    }
    tokio::time::sleep(PAUSE).await;
}

/// A page that listens.
struct Listener {
    told: watch::Receiver<Told>,
    state: u64,
    rates: u64,
    events: watch::Receiver<Recent>,
    /// The number of the event that is told next.
    from: u64,
    /// Whether those of before were told.
    began: bool,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            {
                let told = self.told.borrow_and_update();
                if told.over {
                    return None;
                }
                // Rates are of tasks that a state told of.
                for (heard, message) in [(&mut self.state, &told.state), (&mut self.rates, &told.rates)] {
                    if message.number > *heard {
                        *heard = message.number;
                        return Some(message.text.clone());
                    }
                }
            }
            // A state comes first, which names what happens to whom.
            if self.state > 0
                && let Some(text) = self.happened()
            {
                return Some(text);
            }
            tokio::select! {
                changed = self.told.changed() => changed.ok()?,
                changed = self.events.changed(), if self.state > 0 => changed.ok()?,
            }
        }
    }

    /// What has happened since the last time; the first time also if that is nothing, for the page may remember another
    /// agent's.
    fn happened(&mut self) -> Option<Bytes> {
        let recent = self.events.borrow_and_update();
        let (_, events) = recent.from(self.from);
        let events: Vec<_> = events.map(|dated| shown(dated)).collect();
        self.from = recent.next();
        let kind = if std::mem::replace(&mut self.began, true) { "events" } else { "past" };
        (kind == "past" || !events.is_empty()).then(|| event(kind, &events))
    }
}

/// Sees what is new.
struct Eye {
    state: ApiState,
    /// What was told last.
    text: Bytes,
    counted: Option<(Instant, BTreeMap<TaskId, Sum>)>,
}

struct Seen {
    state: Option<Bytes>,
    rates: Option<Bytes>,
}

impl Eye {
    async fn look(mut self, count: bool) -> (Self, Seen) {
        look(move || {
            let state = self.state();
            let rates = if count { self.rates() } else { None };
            (self, Seen { state, rates })
        })
        .await
    }

    /// The state, if it is another than before.
    fn state(&mut self) -> Option<Bytes> {
        let text = event("state", &self.state.seen());
        (text != self.text).then(|| {
            self.text = text.clone();
            text
        })
    }

    /// Rates since the last look; where nothing is counted none, which says at least that the agent lives.
    fn rates(&mut self) -> Option<Bytes> {
        let loads = self.state.view.as_ref().map(|view| view.loads());
        let Some(Ok(loads)) = loads else { return Some(event("rates", &WebRates::default())) };
        let (now, after) = (Instant::now(), sums(&self.state.control.world(), &loads));
        let before = self.counted.replace((now, after.clone()));
        // The first look has nothing to compare with.
        let (then, before) = before.unwrap_or_else(|| (now, after.clone()));
        Some(event("rates", &WebRates::between(&before, &after, now - then)))
    }
}

/// An event without what may be private: what a check has said, for one.
fn shown(Dated { at, event }: &Dated) -> EventMessage {
    let mut message = EventMessage::of(*at, event);
    message.actor.attributes.retain(|name, _| name == "name");
    message
}

fn event(kind: &str, data: &impl Serialize) -> Bytes {
    // Our own types are always JSON, and that has no line breaks.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {kind}\ndata: {data}\n\n").into()
}
