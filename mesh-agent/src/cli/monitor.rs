//! **Effect.** `mesh monitor`: flows as they begin.

use anyhow::bail;
use serde_json::Value;

use super::Session;
use super::format::template::Shape;
use super::format::{Format, FormatArg};
use crate::api::types::FlowEvent;

/// Show flows as they begin on this node, and what is refused, with the reason, until interrupted
///
/// A flow is shown by the node that balances it. Of a flood only a sample is.
#[derive(Debug, clap::Args)]
pub(super) struct MonitorArgs {
    /// Only what is for this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Also answered pings, and what is dropped for no service
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: MonitorArgs, session: Session) -> anyhow::Result<u8> {
    let format = args.format.format.unwrap_or(Format::Table);
    if let Format::Template(template) | Format::TableTemplate(template) = &format {
        template.check(&Shape::schema("FlowEvent"))?;
    }
    let mut path = format!("/v1/monitor?all={}", args.all);
    if let Some(service) = &args.service {
        // A name or an id is letters, digits and dashes; of anything else the agent knows nothing either.
        let odd = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
        if service.is_empty() || service.contains(odd) {
            bail!("service {service} not found");
        }
        path.push_str(&format!("&service={service}"));
    }
    let show = |line: &str| Ok(session.out.is_read(&show(&format, line)?));
    session.follow(&path, || session.out.say("watching; Ctrl-C ends"), show, || false).await
}

fn show(format: &Format, line: &str) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => line.to_owned(),
        Format::Table => text(&serde_json::from_str(line)?),
        Format::Template(template) | Format::TableTemplate(template) => {
            template.render(&serde_json::from_str::<Value>(line)?)?
        }
    })
}

/// `12:00:01.123 n1 tcp 198.51.100.1:4000 -> 192.0.2.1:8080 -> web.1 (n2)`
fn text(event: &FlowEvent) -> String {
    let FlowEvent {
        time,
        node,
        outcome,
        event,
        protocol,
        client,
        destination,
        service,
        task,
        task_node,
        missed,
    } = event;
    // The hour is that of UTC, as in the JSON; the day is today.
    let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock.trim_end_matches('Z'));
    let clock = format!("{clock:0<12.12}");
    let of = if service.is_empty() { String::new() } else { format!(" ({service})") };
    let end = match (outcome.as_str(), task.is_empty()) {
        ("balanced", false) => format!(" -> {task} ({task_node})"),
        ("balanced", true) => " -> a task that has gone".to_owned(),
        (outcome, _) => format!("{of}: {outcome}, {event}"),
    };
    let middle = if event == "mid_flow" { ", in its middle" } else { "" };
    let gap = if *missed == 0 { String::new() } else { format!("({missed} more were not seen)\n") };
    format!("{gap}{clock} {node} {protocol} {client} -> {destination}{end}{middle}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = |outcome: &str, why: &str, task: &str| FlowEvent {
            time: "2026-11-28T12:00:01.12Z".to_owned(),
            node: "n1".to_owned(),
            outcome: outcome.to_owned(),
            event: why.to_owned(),
            protocol: "tcp".to_owned(),
            client: "198.51.100.1:4000".to_owned(),
            destination: "192.0.2.1:8080".to_owned(),
            service: "web".to_owned(),
            task: task.to_owned(),
            task_node: "n2".to_owned(),
            missed: 0,
        };
        let lines = [
            text(&event("balanced", "new_flow", "web.1")),
            text(&event("balanced", "mid_flow", "web.1")),
            text(&event("refused", "no_backend", "")),
            text(&FlowEvent { missed: 3, service: String::new(), ..event("dropped", "spoofed", "") }),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r"
        12:00:01.120 n1 tcp 198.51.100.1:4000 -> 192.0.2.1:8080 -> web.1 (n2)
        12:00:01.120 n1 tcp 198.51.100.1:4000 -> 192.0.2.1:8080 -> web.1 (n2), in its middle
        12:00:01.120 n1 tcp 198.51.100.1:4000 -> 192.0.2.1:8080 (web): refused, no_backend
        (3 more were not seen)
        12:00:01.120 n1 tcp 198.51.100.1:4000 -> 192.0.2.1:8080: dropped, spoofed
        ");
    }
}
