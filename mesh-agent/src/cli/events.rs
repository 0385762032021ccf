//! **Effect.** `mesh events`: what happens in the mesh, as `docker events` tells it.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::bail;
use mesh_core::events::Filters;
use serde_json::Value;

use super::Session;
use super::format::template::{Shape, Template};
use super::moment::moment;
use super::several::encode;
use crate::api::types::{EventMessage, format_moment};
use crate::events::now;

/// Show what happens in the mesh, until interrupted
///
/// Every agent keeps the last 1,000 events that it has learned of since it started; the time is when it learned of
/// them. That a node is 'down' for others and not for this one only they tell ('by').
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Show those since this moment, too: '10m' ago, '2026-11-29T12:00:00Z', seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Show those up to this moment, and end then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// Only those with one of the values of each key: type, event, service, task, network, node
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    filter: Vec<(String, String)>,
    /// Go on with what happens next, as is done unless told otherwise
    #[arg(long, conflicts_with = "no_follow")]
    follow: bool,
    /// Show what is known and end
    #[arg(long)]
    no_follow: bool,
    /// 'text', 'json', or a Go template such as '{{.Action}}: {{json .}}'
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_default_value = true)]
    format: Format,
}

/// How to print.
#[derive(Debug, Clone, PartialEq)]
enum Format {
    Text,
    Json,
    Template(Template),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ if text.contains("{{") => Ok(Self::Template(text.parse()?)),
            _ => Err(format!("'{text}' is neither 'text', 'json' nor a template such as '{{{{.Action}}}}'")),
        }
    }
}

pub(super) async fn run(args: EventsArgs, session: Session) -> anyhow::Result<u8> {
    let EventsArgs { since, until, filter, follow: _, no_follow, format } = args;
    if let Format::Template(template) = &format {
        template.check(&Shape::schema("EventMessage"))?;
    }
    if since.zip(until).is_some_and(|(since, until)| since > until) {
        bail!("--since is later than --until: no event is in between");
    }
    let mut path = format!("/v1/events?follow={}", !no_follow);
    for (name, moment) in [("since", since), ("until", until)] {
        if let Some(moment) = moment {
            path.push_str(&format!("&{name}={}", format_moment(moment)));
        }
    }
    if !filter.is_empty() {
        let mut filters: BTreeMap<_, Vec<_>> = BTreeMap::new();
        filter.into_iter().for_each(|(key, value)| filters.entry(key).or_default().push(value));
        path.push_str(&format!("&filters={}", encode(&serde_json::to_string(&filters)?)));
    }
    let show = |line: &str| Ok(session.out.is_read(&show(&format, line)?));
    let ends = || no_follow || until.is_some_and(|until| until <= now());
    session.follow(&path, || (), show, ends).await
}

fn show(format: &Format, line: &str) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => line.to_owned(),
        Format::Text => text(&serde_json::from_str(line)?),
        Format::Template(template) => template.render(&serde_json::from_str::<Value>(line)?)?,
    })
}

/// `2026-11-29T12:00:00.123456789Z task start 4wzc… (name=web.1, node=n1, service=web)`
fn text(event: &EventMessage) -> String {
    let EventMessage { time: _, time_nano, kind, action, actor } = event;
    let moment = jiff::Timestamp::from_nanosecond(i128::from(*time_nano)).unwrap_or_default();
    let attributes: Vec<_> = actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{moment:.9} {kind} {action} {} ({})", actor.id, attributes.join(", "))
}

/// `type=task`
fn filter(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| "bad format of filter (expected name=value)".to_owned())?;
    Filters::default().add(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = serde_json::json!({"time": 1_764_417_600, "timeNano": 1_764_417_600_120_000_000_u64, "Type": "task",
            "Action": "health_status: unhealthy", "Actor": {"ID": "4wzc", "Attributes": {"name": "wéb.1", "node": "n1",
            "reason": "health check tcp:80: refused"}}});
        insta::assert_snapshot!(text(&serde_json::from_value(event).unwrap()),
            @"2025-11-29T12:00:00.120000000Z task health_status: unhealthy 4wzc (name=wéb.1, node=n1, reason=health check tcp:80: refused)");
    }
}
