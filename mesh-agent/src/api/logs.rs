//! **Effect.** `/v1/services/{id}/logs` and `/v1/tasks/{id}/logs`: what tasks print on this node, one line of JSON each.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mesh_core::model::{NodeId, Service, Snapshot, Task};
use tokio::sync::watch;

use super::ApiState;
use super::answer::{Answer, Refused};
use super::types::{ErrorBody, LogLine, LogStream, parse_moment};
use crate::logs::{self, Line, Reader, Span, Stream};

/// How often to look for more.
const LOOK: Duration = Duration::from_millis(200);
/// How many bytes are made at a time, about: as fast as they are read, and not all at once.
const AT_ONCE: usize = 64 << 10;

/// What a service's tasks print on this node, one JSON document per line
///
/// Only what the mesh itself runs is kept. Of tasks on other nodes it is said where they are.
#[utoipa::path(get, path = "/v1/services/{id}/logs", tag = "services",
    params(
        ("id", description = "Name, id, or beginning of an id"),
        ("follow" = Option<bool>, Query, description = "Also what they print from now on"),
        ("tail" = Option<u64>, Query, description = "Only so many of the last lines of each task"),
        ("since" = Option<f64>, Query, description = "Only what was printed since, in seconds since 1970")),
    responses(
        (status = 200, description = "The lines, in the order of their times", body = LogLine, content_type = "application/x-ndjson"),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is no such service", body = ErrorBody)))]
pub(super) async fn service(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Response> {
    let span = span(query.as_deref().unwrap_or_default())?;
    let world = state.control.world();
    let service = world.service(&id).ok_or_else(|| Refused::not_found("service", &id))?;
    Ok(answer(&state, Wanted { service: Arc::clone(service), slot: None, span }))
}

/// What a task prints, if it is on this node; otherwise where it is
#[utoipa::path(get, path = "/v1/tasks/{id}/logs", tag = "tasks",
    params(
        ("id", description = "Name such as web.1, id, or beginning of an id"),
        ("follow" = Option<bool>, Query, description = "Also what it prints from now on"),
        ("tail" = Option<u64>, Query, description = "Only so many of the last lines"),
        ("since" = Option<f64>, Query, description = "Only what was printed since, in seconds since 1970")),
    responses(
        (status = 200, description = "The lines", body = LogLine, content_type = "application/x-ndjson"),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is no such task, or it has no service", body = ErrorBody)))]
pub(super) async fn task(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer<Response> {
    let span = span(query.as_deref().unwrap_or_default())?;
    let world = state.control.world();
    let task = world.task(&id).ok_or_else(|| Refused::not_found("task", &id))?;
    let service = task.service.as_ref().and_then(|id| world.services.get(id));
    let Some(service) = service else {
        let name = world.task_name(task);
        return Err(Refused::absent(format!(
            "task {name} has no service: the mesh does not keep what it prints"
        )));
    };
    Ok(answer(&state, Wanted { service: Arc::clone(service), slot: Some(task.slot), span }))
}

fn span(query: &str) -> Answer<Span> {
    let mut span = Span::default();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        let wrong = || {
            Refused::invalid(format!(
                "query parameter '{key}={value}' is not understood: there are 'follow', 'tail=NUMBER' and \
                 'since=SECONDS', counted from 1970"
            ))
        };
        match (key, value) {
            ("follow", "true" | "1") => span.follow = true,
            ("follow", "false" | "0") => span.follow = false,
            ("tail", number) => span.tail = Some(number.parse().map_err(|_| wrong())?),
            ("since", seconds) => span.since = Some(moment(seconds).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        }
    }
    Ok(span)
}

fn moment(seconds: &str) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(parse_moment(seconds)?)).ok()
}

/// What is asked for.
struct Wanted {
    service: Arc<Service>,
    /// Only of this task.
    slot: Option<u32>,
    span: Span,
}

impl Wanted {
    fn has(&self, slot: u32) -> bool {
        self.slot.is_none_or(|wanted| wanted == slot)
    }

    /// A service that had the name before printed other things.
    fn is_ours(&self, line: &Line) -> bool {
        let ms = |time: Timestamp| u64::try_from(time.as_millisecond()).unwrap_or_default();
        line.time.is_none_or(|time| ms(time) >= self.service.created)
    }
}

/// First of whom nothing can be told, then what was printed.
fn answer(state: &ApiState, wanted: Wanted) -> Response {
    let (world, me) = (state.control.world(), state.control.node());
    let mut first = Vec::new();
    for task in world.tasks_of(&wanted.service.id).filter(|task| wanted.has(task.slot)) {
        if let Some(line) = why_absent(&world, task, me) {
            let (task, node) = (world.task_name(task), node_name(&world, &task.node));
            put(&mut first, &LogLine { time: String::new(), task, node, stream: LogStream::Mesh, line });
        }
    }
    let source = Source {
        logs: state.logs.clone(),
        wanted,
        node: node_name(&world, me),
        open: Vec::new(),
        known: BTreeSet::new(),
        worlds: state.control.worlds(),
    };
    let lines = futures_util::stream::unfold((source, first), |(source, first)| async move {
        let (source, lines) = if first.is_empty() { source.lines().await? } else { (source, first) };
        Some((Ok::<_, Infallible>(Bytes::from(lines)), (source, Vec::new())))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// Why what a task prints cannot be told here.
fn why_absent(world: &Snapshot, task: &Task, me: &NodeId) -> Option<String> {
    if task.program.is_none() {
        return Some("was not started by the mesh, which does not keep what it prints".to_owned());
    }
    let (name, node) = (world.task_name(task), node_name(world, &task.node));
    (task.node != *me).then(|| {
        format!("runs on another node: 'mesh service logs {name}' on node {node} shows what it prints")
    })
}

fn node_name(world: &Snapshot, id: &NodeId) -> String {
    world.nodes.get(id).map_or_else(|| id.to_string(), |node| node.name.to_string())
}

/// Adds a line to lines.
fn put(lines: &mut Vec<u8>, line: &LogLine) {
    // Words are always JSON.
    if serde_json::to_writer(&mut *lines, line).is_ok() {
        lines.push(b'\n');
    }
}

/// Where lines come from.
struct Source {
    logs: PathBuf,
    wanted: Wanted,
    node: String,
    open: Vec<Open>,
    /// The tasks whose logs are, or cannot be, opened; 0: those of all.
    known: BTreeSet<u32>,
    /// Ends with the agent.
    worlds: watch::Receiver<Arc<Snapshot>>,
}

/// A task's log, and its next line.
struct Open {
    slot: u32,
    reader: Reader,
    next: Option<Line>,
}

impl Source {
    /// Some lines; None: there are no more, or the agent ends.
    async fn lines(self) -> Option<(Self, Vec<u8>)> {
        let mut source = self;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let lines = source.read();
                (source, lines)
            });
            let lines;
            (source, lines) = read.await.ok()?;
            if !lines.is_empty() {
                return Some((source, lines));
            }
            if !source.wanted.span.follow || source.worlds.has_changed().is_err() {
                return None;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn read(&mut self) -> Vec<u8> {
        let mut lines = Vec::new();
        self.look(&mut lines);
        while lines.len() < AT_ONCE {
            let mut failed = Vec::new();
            self.open.retain_mut(|open| match open.fill(&self.wanted) {
                Ok(()) => true,
                Err(error) => {
                    failed.push((open.slot, format!("its log cannot be read: {error}")));
                    false
                }
            });
            for (slot, why) in failed {
                put(&mut lines, &self.line(slot, LogStream::Mesh, None, why));
            }
            let there = self.open.iter_mut().filter(|open| open.next.is_some());
            let first = there.min_by_key(|open| open.next.as_ref().and_then(|line| line.time));
            let Some((slot, line)) = first.and_then(|open| Some((open.slot, open.next.take()?))) else {
                break;
            };
            let stream = match line.stream {
                Stream::Stdout => LogStream::Stdout,
                Stream::Stderr => LogStream::Stderr,
            };
            let text = String::from_utf8_lossy(&line.text).into_owned();
            put(&mut lines, &self.line(slot, stream, line.time, text));
        }
        lines
    }

    /// Opens logs that are new. Of those that come later all is told.
    fn look(&mut self, lines: &mut Vec<u8>) {
        let mut span = self.wanted.span;
        if !self.known.is_empty() {
            span.tail = None;
        }
        let service = Arc::clone(&self.wanted.service);
        let service = service.name.as_str();
        let slots = logs::slots(&self.logs, service).unwrap_or_else(|error| {
            if self.known.insert(0) {
                let why = format!("{} cannot be read: {error}", self.logs.display());
                put(lines, &self.line(0, LogStream::Mesh, None, why));
            }
            Vec::new()
        });
        for slot in slots {
            if !self.wanted.has(slot) || !self.known.insert(slot) {
                continue;
            }
            match Reader::open(logs::file(&self.logs, service, slot), span) {
                Ok(reader) => self.open.push(Open { slot, reader, next: None }),
                Err(error) => {
                    let why = format!("its log cannot be opened: {error}");
                    put(lines, &self.line(slot, LogStream::Mesh, None, why));
                }
            }
        }
    }

    fn line(&self, slot: u32, stream: LogStream, time: Option<Timestamp>, line: String) -> LogLine {
        let time = time.map_or_else(String::new, |time| format!("{time:.9}"));
        let task = format!("{}.{slot}", self.wanted.service.name);
        LogLine { time, task, node: self.node.clone(), stream, line }
    }
}

impl Open {
    /// Reads up to the next line that is wanted, if there is one now.
    fn fill(&mut self, wanted: &Wanted) -> std::io::Result<()> {
        while self.next.is_none()
            && let Some(line) = self.reader.line()?
        {
            self.next = Some(line).filter(|line| wanted.is_ours(line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_strictly() {
        let read = |query| span(query).unwrap();
        assert_eq!(read(""), Span::default());
        let since = Some("1970-01-01T00:00:01.5Z".parse().unwrap());
        assert_eq!(read("follow&tail=3&since=1.5"), Span { tail: Some(3), since, follow: true });
        for query in
            ["tail=-1", "tail=all", "since=yesterday", "since=-1", "since=inf", "folow", "follow=maybe"]
        {
            assert!(span(query).is_err(), "{query}");
        }
    }
}
