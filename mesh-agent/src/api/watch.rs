//! **Effect.** `/v1/watch`: the records as they change, one line of JSON each, for as long as somebody reads.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use mesh_core::journal::{Journal, Thing};
use mesh_core::kv::Rev;
use mesh_core::liveness::Masks;
use mesh_core::model::{self, Snapshot};
use mesh_core::serving::Serving;
use tokio::sync::watch;

use super::ApiState;
use super::answer::{Answer, Refused};
use super::nodes;
use super::types::{ErrorBody, Service, Task, WatchAction, WatchEvent, WatchKind};

/// How often it is said that nothing happened.
const SYNCED: Duration = Duration::from_secs(5);
/// How many lines are made at a time: as fast as they are read, and not all at once.
const AT_ONCE: usize = 256;

/// Networks, services, tasks and nodes as they change, one JSON document per line
///
/// It begins with all that there is, or after `since` if what changed since is still known. A line with the action
/// `synced` has the revision to go on from.
#[utoipa::path(get, path = "/v1/watch", tag = "node",
    params(
        ("kind" = Option<String>, Query, description = "Only these: network, service, task, node; several with commas"),
        ("since" = Option<u64>, Query, description = "Only what changed after this revision")),
    responses(
        (status = 200, description = "What is there and what happens", body = WatchEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The request makes no sense", body = ErrorBody)))]
pub(super) async fn watch(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer<Response> {
    let Wanted { kinds, since } = Wanted::read(query.as_deref().unwrap_or_default())?;
    let journal = state.past.journal.clone();
    let source = Source { journal, state, kinds, since, telling: None, spoke: false, noted: 0 };
    let lines = futures_util::stream::unfold(source, |mut source| async {
        let line = source.lines().await?;
        Some((Ok::<_, Infallible>(line), source))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kinds: BTreeSet<WatchKind>,
    since: Option<Rev>,
}

impl Wanted {
    fn read(query: &str) -> Answer<Self> {
        use WatchKind::{Network, Node, Service, Task};
        let mut wanted = Self { kinds: BTreeSet::new(), since: None };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let wrong = || {
                Refused::invalid(format!(
                    "query parameter '{key}={value}' is not understood: there are 'kind=' with network, service, task \
                     and node, and 'since=REVISION'"
                ))
            };
            match key {
                "kind" => {
                    for kind in value.split(',') {
                        wanted.kinds.insert(match kind {
                            "network" => Network,
                            "service" => Service,
                            "task" => Task,
                            "node" => Node,
                            _ => return Err(wrong()),
                        });
                    }
                }
                "since" => wanted.since = Some(Rev(value.parse().map_err(|_| wrong())?)),
                _ => return Err(wrong()),
            }
        }
        if wanted.kinds.is_empty() {
            wanted.kinds.extend([Network, Service, Task, Node]);
        }
        Ok(wanted)
    }
}

/// Where lines come from.
struct Source {
    journal: watch::Receiver<Journal>,
    state: ApiState,
    kinds: BTreeSet<WatchKind>,
    /// All up to here was told; none: nothing was.
    since: Option<Rev>,
    /// What is left to be told, up to a revision.
    telling: Option<(Rev, VecDeque<Thing>)>,
    /// Whether anything was said yet.
    spoke: bool,
    /// How often anything was noted when it was looked for last.
    noted: u64,
}

impl Source {
    /// Some lines; None: the agent ends.
    async fn lines(&mut self) -> Option<Bytes> {
        loop {
            if let Some((rev, mut left)) = self.telling.take() {
                let world = self.state.control.world();
                let few: Vec<_> = left.drain(..left.len().min(AT_ONCE)).collect();
                // Those by which it was noted: what this node applies follows at once.
                let masks = self.state.past.masks();
                let services = few.iter().filter_map(|thing| match thing {
                    Thing::Task(id) => world.tasks.get(id)?.service.as_ref(),
                    _ => None,
                });
                let services: BTreeSet<_> = services.collect();
                let serving = Serving::of(&world, &masks, services);
                let task = |task: &model::Task| Task::of(&world, &masks, &serving, task);
                let mut events: Vec<_> =
                    few.into_iter().map(|thing| self.event(&world, &masks, rev, thing, task)).collect();
                if left.is_empty() {
                    self.since = Some(rev);
                    events.push(WatchEvent::of(WatchAction::Synced, rev.0));
                } else {
                    self.telling = Some((rev, left));
                }
                return text(&events);
            }
            if let Some(lines) = self.begin() {
                return Some(lines);
            }
            if self.telling.is_some() {
                continue;
            }
            match tokio::time::timeout(SYNCED, self.journal.changed()).await {
                Ok(changed) => changed.ok()?,
                Err(_) => {
                    let now = self.since.unwrap_or_default();
                    return text(&[WatchEvent::of(WatchAction::Synced, now.0)]);
                }
            }
        }
    }

    /// Finds out what is to be told; what is to be said before that.
    fn begin(&mut self) -> Option<Bytes> {
        let journal = self.journal.borrow_and_update();
        let rev = journal.rev()?;
        let known = self.since.filter(|since| self.spoke || journal.covers(*since));
        let news = known.and_then(|since| journal.since(since));
        let news =
            news.map(|things| things.into_iter().filter(|thing| self.kinds.contains(&kind(thing))).cloned());
        let news: Option<VecDeque<_>> = news.map(Iterator::collect);
        let looked = std::mem::replace(&mut self.noted, journal.noted());
        let noted = looked != journal.noted();
        drop(journal);
        let spoke = std::mem::replace(&mut self.spoke, true);
        match news {
            _ if spoke && !noted => None,
            Some(things) => {
                self.telling = Some((rev, things));
                None
            }
            None => {
                let world = self.state.control.world();
                let all = everything(&world).filter(|thing| self.kinds.contains(&kind(thing))).collect();
                self.telling = Some((rev, all));
                text(&[WatchEvent::of(WatchAction::Reset, rev.0)])
            }
        }
    }

    fn event(
        &self,
        world: &Snapshot,
        masks: &Masks,
        rev: Rev,
        thing: Thing,
        of: impl Fn(&model::Task) -> Task,
    ) -> WatchEvent {
        let mut event = WatchEvent::of(WatchAction::Set, rev.0);
        event.kind = Some(kind(&thing));
        event.id = match thing {
            Thing::Network(id) => {
                event.network = world.networks.get(&id).map(|network| network.as_ref().into());
                id.to_string()
            }
            Thing::Service(id) => {
                event.service = world.services.get(&id).map(|service| Service::of(world, service));
                id.to_string()
            }
            Thing::Task(id) => {
                event.task = world.tasks.get(&id).map(|task| of(task));
                id.to_string()
            }
            Thing::Node(id) => {
                event.node = world.nodes.get(&id).map(|node| nodes::view(&self.state, world, masks, node));
                id.to_string()
            }
        };
        let WatchEvent { network, service, task, node, .. } = &event;
        if network.is_none() && service.is_none() && task.is_none() && node.is_none() {
            event.action = WatchAction::Remove;
        }
        event
    }
}

fn kind(thing: &Thing) -> WatchKind {
    match thing {
        Thing::Network(_) => WatchKind::Network,
        Thing::Service(_) => WatchKind::Service,
        Thing::Task(_) => WatchKind::Task,
        Thing::Node(_) => WatchKind::Node,
    }
}

/// All that there is, what others need first.
fn everything(world: &Snapshot) -> impl Iterator<Item = Thing> {
    let nodes = world.nodes.keys().cloned().map(Thing::Node);
    let networks = world.networks.keys().cloned().map(Thing::Network);
    let services = world.services.keys().cloned().map(Thing::Service);
    let tasks = world.tasks.keys().cloned().map(Thing::Task);
    nodes.chain(networks).chain(services).chain(tasks)
}

fn text(events: &[WatchEvent]) -> Option<Bytes> {
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, event).ok()?;
        lines.push(b'\n');
    }
    Some(lines.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_strictly() {
        let read = |query| Wanted::read(query).unwrap();
        assert_eq!(read("").kinds.len(), 4);
        let wanted = read("kind=task,service&since=7");
        assert_eq!((wanted.kinds.len(), wanted.since), (2, Some(Rev(7))));
        for wrong in ["kind=tasks", "kind=", "since=", "since=x", "service=web"] {
            assert!(Wanted::read(wrong).is_err(), "{wrong}");
        }
    }
}
