//! **Effect.** `/v1/monitor`: flows as they begin, one line of JSON each, for as long as somebody reads.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use mesh_core::whois::Whois;
use mesh_ebpf::verdict::Event;

use super::ApiState;
use super::answer::{Answer, Refused};
use super::counters::view;
use super::types::{ErrorBody, FlowEvent};
use crate::control::{Control, now};
use crate::dataplane::ebpf::{View, Watching};

/// Flows as they begin and packets that are turned away, one JSON document per line
///
/// Of a flood the kernel tells of some only.
#[utoipa::path(get, path = "/v1/monitor", tag = "node",
    params(
        ("service" = Option<String>, Query, description = "Only what is for this service, by name or id"),
        ("all" = Option<bool>, Query, description = "Also answered pings, and what is for no service")),
    responses(
        (status = 200, description = "What happens from now on", body = FlowEvent, content_type = "application/x-ndjson"),
        (status = 400, description = "The request makes no sense", body = ErrorBody),
        (status = 404, description = "There is no such service, or the node's data plane tells nothing", body = ErrorBody)))]
pub(super) async fn monitor(State(state): State<ApiState>, RawQuery(query): RawQuery) -> Answer<Response> {
    let mut wanted = Wanted::read(query.as_deref().unwrap_or_default())?;
    let view = view(&state, "monitor", "there is one")?;
    let control = state.control;
    if let Some(reference) = &mut wanted.service {
        let world = control.world();
        let service = world.service(reference).ok_or_else(|| Refused::not_found("service", reference))?;
        *reference = service.name.to_string();
    }
    let source = Source { watching: view.watch(), view, control, wanted, whois: Whois::default() };
    let lines = futures_util::stream::unfold(source, |mut source| async {
        let line = source.line().await?;
        Some((Ok::<_, std::convert::Infallible>(line), source))
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    service: Option<String>,
    all: bool,
}

impl Wanted {
    fn read(query: &str) -> Answer<Self> {
        let mut wanted = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=').unwrap_or((part, "true")) {
                ("service", name) => wanted.service = Some(name.to_owned()),
                ("all", "true" | "1") => wanted.all = true,
                ("all", "false" | "0") => wanted.all = false,
                (key, value) => {
                    return Err(Refused::invalid(format!(
                        "query parameter '{key}={value}' is not understood: there are 'service=NAME' and 'all'"
                    )));
                }
            }
        }
        Ok(wanted)
    }

    fn has(&self, event: &FlowEvent) -> bool {
        match &self.service {
            Some(service) if *service != event.service => false,
            _ => self.all || (!event.service.is_empty() && event.event != Event::Ping.name()),
        }
    }
}

/// Where lines come from.
struct Source {
    watching: Watching,
    view: Arc<View>,
    control: Control,
    wanted: Wanted,
    whois: Whois,
}

impl Source {
    /// The next line; None: the agent ends.
    async fn line(&mut self) -> Option<Bytes> {
        let mut unseen = 0;
        loop {
            let (record, missed) = self.watching.next().await?;
            unseen += missed;
            let world = self.control.world();
            let me = self.control.node();
            if self.whois.rev != world.changed {
                self.whois = Whois::of(&world, me);
            }
            let node = world.nodes.get(me).map_or_else(|| me.to_string(), |node| node.name.to_string());
            let backend = self.view.backend(record.backend);
            let event = FlowEvent::of(&self.whois, &node, now(), &record, backend.as_ref(), unseen);
            if self.wanted.has(&event) {
                let mut line = serde_json::to_vec(&event).ok()?;
                line.push(b'\n');
                return Some(line.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_strictly() {
        let read = |query| Wanted::read(query).unwrap();
        assert_eq!(read(""), Wanted::default());
        assert_eq!(read("all&service=web"), Wanted { service: Some("web".to_owned()), all: true });
        assert!(!read("all=false").all);
        assert!(Wanted::read("servcie=web").is_err() && Wanted::read("all=maybe").is_err());
    }
}
