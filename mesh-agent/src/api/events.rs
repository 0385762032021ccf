//! **Effect.** `/v1/events`: what happened and what happens, one line of JSON each, as `GET /events` of Docker.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use mesh_core::events::{Event, Filters, Kind, Recent};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::ApiState;
use super::answer::{Answer, Refused};
use super::types::{ErrorBody, EventMessage, parse_moment};
use crate::events::now;

/// How many lines are made at a time: as fast as they are read, and not all at once.
const AT_ONCE: usize = 256;

/// What happened and what happens, one JSON document per line
///
/// Told are the last 1,000 events that this agent has learned of since it started, and those that follow. Without
/// `since` and `until` it begins with what happens next. An agent remembers for nobody: whoever reads more slowly than
/// things happen is told how many were `missed`.
#[utoipa::path(get, path = "/v1/events", tag = "node",
    params(
        ("since" = Option<String>, Query, description = "From this moment on: seconds since 1970, with a fraction or not"),
        ("until" = Option<String>, Query, description = "Up to this moment, and end then"),
        ("filters" = Option<String>, Query, description = "One of the values of each key, as JSON: `{\"type\": [\"task\"], \"service\": [\"web\"]}`; \
            keys: type, event, service, task, network, node"),
        ("follow" = Option<bool>, Query, description = "Whether to go on with what happens next; `true` unless said otherwise")),
    responses(
        (status = 200, description = "What happened and happens", body = EventMessage, content_type = "application/x-ndjson"),
        (status = 400, description = "The request makes no sense", body = ErrorBody)))]
pub(super) async fn events(State(state): State<ApiState>, uri: Uri) -> Answer<Response> {
    let wanted = Wanted::read(&uri)?;
    let recent = state.past.events.clone();
    let node = state.control.node().to_string();
    let name = state.control.world().nodes.get(state.control.node()).map(|node| node.name.to_string());
    let source = Source::new(recent, wanted, node, name.unwrap_or_default());
    let lines = futures_util::stream::unfold(source, |mut source| async {
        let line = source.lines().await?;
        Some((Ok::<_, Infallible>(line), source))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// Nanoseconds since 1970.
    since: Option<u64>,
    until: Option<u64>,
    filters: Filters,
    ends: bool,
}

impl Wanted {
    fn read(uri: &Uri) -> Answer<Self> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Query(pairs) = pairs.map_err(|error| Refused::invalid(format!("invalid query: {error}")))?;
        let mut wanted = Self::default();
        for (key, value) in pairs {
            let wrong = || {
                Refused::invalid(format!(
                    "query parameter '{key}={value}' is not understood: there are 'since=' and 'until=' with seconds since \
                     1970, 'filters=' with JSON and 'follow=' with true or false"
                ))
            };
            let moment = || parse_moment(&value).map(Some).ok_or_else(wrong);
            match (key.as_str(), value.as_str()) {
                ("since", _) => wanted.since = moment()?,
                ("until", _) => wanted.until = moment()?,
                ("filters", _) => wanted.filter(&value)?,
                ("follow", "true" | "1") => wanted.ends = false,
                ("follow", "false" | "0") => wanted.ends = true,
                _ => return Err(wrong()),
            }
        }
        match (wanted.since, wanted.until) {
            (Some(since), Some(until)) if since > until => {
                Err(Refused::invalid("'since' is later than 'until': no event is in between"))
            }
            _ => Ok(wanted),
        }
    }

    fn filter(&mut self, json: &str) -> Answer<()> {
        let all: BTreeMap<String, Vec<String>> = serde_json::from_str(json).map_err(|error| {
            Refused::invalid(format!("invalid filters ({error}): they are such as {{\"type\": [\"task\"]}}"))
        })?;
        for (key, values) in &all {
            for value in values {
                self.filters.add(key, value).map_err(Refused::invalid)?;
            }
        }
        Ok(())
    }
}

/// Where lines come from.
struct Source {
    recent: Receiver<Recent>,
    wanted: Wanted,
    node: String,
    name: String,
    /// The number of the event to be told next.
    next: u64,
    /// Whether some that were asked for were forgotten before it began.
    forgot: bool,
    /// When to end.
    end: Option<Instant>,
}

impl Source {
    fn new(recent: Receiver<Recent>, wanted: Wanted, node: String, name: String) -> Self {
        let known = recent.borrow();
        let past = wanted.since.is_some() || wanted.until.is_some() || wanted.ends;
        let next = if past { known.oldest() } else { known.next() };
        let forgot = wanted.since.is_some_and(|since| known.forgot(since));
        drop(known);
        let left = wanted.until.map(|until| until.saturating_sub(now()));
        let end = left.map(|left| Instant::now() + Duration::from_nanos(left));
        Self { recent, wanted, node, name, next, forgot, end }
    }

    /// Some lines; none: that was all, or the agent ends.
    async fn lines(&mut self) -> Option<Bytes> {
        loop {
            // First it is said that more may come, so that none is overlooked.
            let over = self.wanted.ends || self.end.is_some_and(|end| end <= Instant::now());
            let (lines, more) = self.told()?;
            if !lines.is_empty() {
                return Some(lines.into());
            }
            if more {
                continue;
            }
            if over {
                return None;
            }
            tokio::select! {
                changed = self.recent.changed() => changed.ok()?,
                () = until(self.end) => {}
            }
        }
    }

    /// The next lines, and whether more are known.
    fn told(&mut self) -> Option<(Vec<u8>, bool)> {
        let recent = self.recent.borrow_and_update();
        let (missed, events) = recent.from(self.next);
        let few: Vec<_> = events.take(AT_ONCE).cloned().collect();
        self.next += missed + few.len() as u64;
        let more = self.next < recent.next();
        drop(recent);
        let mut lines = Vec::new();
        let mut line = |message: &EventMessage| {
            serde_json::to_writer(&mut lines, message).ok()?;
            lines.push(b'\n');
            Some(())
        };
        if missed > 0 || std::mem::take(&mut self.forgot) {
            line(&EventMessage::of(now(), &self.gap(missed)))?;
        }
        let Wanted { since, until, filters, ends: _ } = &self.wanted;
        let wanted = few.iter().filter(|dated| {
            since.is_none_or(|since| dated.at >= since)
                && until.is_none_or(|until| dated.at <= until)
                && filters.has(&dated.event)
        });
        wanted.map(|dated| line(&EventMessage::of(dated.at, &dated.event))).collect::<Option<()>>()?;
        Some((lines, more))
    }

    /// That events are not told, whatever the filters would have made of them.
    fn gap(&self, missed: u64) -> Event {
        let (count, reason) = match missed {
            0 => ("some".to_owned(), "the agent has forgotten older ones"),
            count => (count.to_string(), "they were read too slowly"),
        };
        let attributes =
            [("name", self.name.clone()), ("missed", count), ("reason", reason.to_owned())].into();
        Event { kind: Kind::Agent, action: "missed", id: self.node.clone(), attributes }
    }
}

/// Waits until a moment; for ever without one.
async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Answer<Wanted> {
        Wanted::read(&format!("/v1/events?{query}").parse().unwrap())
    }

    #[test]
    fn queries_are_read_strictly() {
        assert_eq!(read("").unwrap(), Wanted::default());
        let wanted =
            read("since=7.5&until=8&follow=false&filters=%7B%22event%22%3A%5B%22let%20in%22%5D%7D").unwrap();
        assert_eq!(
            (wanted.since, wanted.until, wanted.ends),
            (Some(7_500_000_000), Some(8_000_000_000), true)
        );
        let mut filters = Filters::default();
        filters.add("event", "let in").unwrap();
        assert_eq!(wanted.filters, filters);
        for wrong in [
            "since=",
            "since=yesterday",
            "until=-1",
            "since=9&until=8",
            "follow=perhaps",
            "filters=type",
            "filters=%5B%5D",
            "filters=%7B%22type%22%3A%5B%22pod%22%5D%7D",
            "filter=x",
            "kind=task",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    fn happened(count: usize, action: &'static str) -> Vec<Event> {
        let event = Event { kind: Kind::Task, action, id: "t".to_owned(), attributes: Default::default() };
        vec![event; count]
    }

    async fn actions(source: &mut Source, count: usize) -> Vec<(String, Option<String>)> {
        let mut all = Vec::new();
        while all.len() < count {
            let Some(lines) = source.lines().await else { break };
            let messages = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let messages = messages.map(|line| serde_json::from_slice::<EventMessage>(line).unwrap());
            all.extend(
                messages.map(|message| (message.action, message.actor.attributes.get("missed").cloned())),
            );
        }
        all
    }

    /// Nothing waits for a reader, and no reader is told of more than is remembered.
    #[tokio::test]
    async fn whoever_reads_too_slowly_is_told_how_much_it_missed() {
        let (recent, reader) = tokio::sync::watch::channel(Recent::default());
        recent.send_modify(|recent| recent.note(1, happened(5, "old")));
        let mut source = Source::new(reader.clone(), Wanted::default(), "n".to_owned(), "n1".to_owned());
        recent.send_modify(|recent| recent.note(10, happened(1, "new")));
        assert_eq!(
            actions(&mut source, 1).await,
            [("new".to_owned(), None)],
            "what was before is not asked for"
        );
        recent.send_modify(|recent| recent.note(20, happened(Recent::ROOM + 3, "many")));
        let told = actions(&mut source, 1 + Recent::ROOM).await;
        assert_eq!(told[0], ("missed".to_owned(), Some("3".to_owned())));
        assert_eq!(told.len(), 1 + Recent::ROOM);
        // A question for more than is remembered is answered with what is, and says so.
        let since = Wanted { since: Some(15), ends: true, ..Wanted::default() };
        let mut source = Source::new(reader.clone(), since, "n".to_owned(), "n1".to_owned());
        let told = actions(&mut source, usize::MAX).await;
        assert_eq!((told.len(), told[0].1.as_deref()), (1 + Recent::ROOM, Some("some")));
        let since = Wanted { since: Some(1_000), ends: true, ..Wanted::default() };
        let mut source = Source::new(reader, since, "n".to_owned(), "n1".to_owned());
        assert_eq!(actions(&mut source, usize::MAX).await.len(), 23, "the last 23 are from then on");
        drop(recent);
        assert_eq!(source.lines().await, None);
    }
}
