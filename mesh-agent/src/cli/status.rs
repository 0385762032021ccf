//! **Effect.** `mesh status`: how this node fares, and what others say is wrong with them.

use serde_json::Value;

use super::format::{self, Format, FormatArg};
use super::table;
use super::{FAILED, OK, Session};
use crate::api::types::{Counters, Feature, FlowTable, Status};

/// Show how this node fares; exits with 1 when it does not do all that it should
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: StatusArgs, session: Session) -> anyhow::Result<u8> {
    let value: Value = session.client.get("/v1/status").await?;
    let status: Status = serde_json::from_value(value.clone())?;
    match args.format.format.as_ref() {
        None | Some(Format::Table) => session.out.bytes(text(&status).as_bytes()),
        format => format::records(&session.out, format, "Status", &[value])?,
    }
    Ok(if status.healthy { OK } else { FAILED })
}

fn text(status: &Status) -> String {
    let Status {
        healthy,
        node_id,
        node_name,
        version,
        applied_revision,
        wanted_revision,
        store,
        planes,
        problems,
        features,
        limits,
        counters,
        shortages,
        nodes,
    } = status;
    let name = if node_name.is_empty() { "(not in the mesh yet)" } else { node_name };
    let word = if *healthy { "healthy" } else { "NOT HEALTHY" };
    let mut text = format!("Node:     {name} ({node_id}), {word}, mesh {version}\n");
    let connected = if store.connected { "connected" } else { "NOT CONNECTED" };
    text.push_str(&format!(
        "Store:    {} {}, {connected}, revision {}\n",
        store.engine, store.cluster, store.revision
    ));
    if !store.problem.is_empty() {
        text.push_str(&format!("          {}\n", store.problem));
    }
    text.push_str(&format!("Applied:  revision {applied_revision} of {wanted_revision}\n"));
    section(
        &mut text,
        "Planes",
        planes.iter().map(|(name, plane)| {
            let errors = if plane.errors.is_empty() {
                String::new()
            } else {
                format!(", {} ERRORS", plane.errors.len())
            };
            let millis = plane.last_micros as f64 / 1000.0;
            let (rounds, changed) = (plane.rounds, plane.changed);
            format!("{name}: {rounds} rounds, {changed} changes, the last in {millis:.1} ms{errors}")
        }),
    );
    let errors = planes.iter().flat_map(|(name, plane)| {
        plane.errors.iter().map(move |(object, error)| format!("{name}: {object}: {error}"))
    });
    section(&mut text, "Errors", errors);
    section(&mut text, "Problems", problems.iter().map(|p| format!("{}: {}", p.about, p.message)));
    section(&mut text, "Services", shortages.iter().map(|p| format!("{}: {}", p.about, p.message)));
    section(&mut text, "Features", features.iter().map(feature));
    section(&mut text, "Limits", limits.iter().cloned());
    if let Some(Counters { events, tables }) = counters {
        let table = |(name, FlowTable { live, established, slots }): (&String, &FlowTable)| {
            format!("{name}: {live} entries of {slots}, {established} established")
        };
        section(&mut text, "Flow tables", tables.iter().map(table));
        let happened = events.iter().filter(|(_, count)| **count > 0);
        section(&mut text, "Counters", happened.map(|(event, count)| format!("{event}: {count}")));
    }
    if !nodes.is_empty() {
        text.push_str("Other nodes:\n");
        let rows = nodes.iter().map(|node| {
            let problems = if node.problems.is_empty() { "-".to_owned() } else { node.problems.join("; ") };
            vec![format!("  {}", node.name), node.state.clone(), node.applied_revision.to_string(), problems]
        });
        text.push_str(&table::render(
            &["  NAME", "STATUS", "APPLIED", "PROBLEMS"],
            &rows.collect::<Vec<_>>(),
        ));
    }
    text
}

fn feature(Feature { name, state, reason, instead }: &Feature) -> String {
    let mut text = format!("{name}: {state}");
    if !reason.is_empty() {
        text.push_str(&format!(" ({reason})"));
    }
    if !instead.is_empty() {
        text.push_str(&format!("; {instead}"));
    }
    text
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        text.push_str(&format!("{title}:\n"));
        lines.for_each(|line| text.push_str(&format!("  {line}\n")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_seen_at_once() {
        let status = serde_json::json!({
            "Healthy": false, "NodeID": "abc", "NodeName": "n1", "Version": "1.0.0", "AppliedRevision": 7,
            "WantedRevision": 9,
            "Store": {"Connected": false, "Engine": "local", "Cluster": "c1", "Revision": 9, "Problem": "gone"},
            "Planes": {"overlay": {"Rounds": 4, "Changed": 2, "LastMicros": 1500, "Errors": {"link x": "busy"}}},
            "Problems": [{"About": "network app", "Message": "is full"}],
            "Shortages": [{"About": "service web: web.2", "Message": "no room; make some"}], "Limits": ["no client addresses"],
            "Features": [{"Name": "ebpf", "State": "used"}, {"Name": "tcx", "State": "off", "Instead": "filters"},
                {"Name": "csum_v6", "State": "missing", "Reason": "too old", "Instead": "none"}],
            "Counters": {"Events": {"evicted": 0, "new_flow": 12, "no_backend": 1},
                "Tables": {"tcp": {"Live": 24, "Established": 20, "Slots": 262144}}},
            "Nodes": [{"Name": "n2", "State": "ready", "AppliedRevision": 9},
                {"Name": "node-three", "State": "unknown", "AppliedRevision": 0, "Problems": ["no nft"]}]
        });
        insta::assert_snapshot!(text(&serde_json::from_value(status).unwrap()), @r"
        Node:     n1 (abc), NOT HEALTHY, mesh 1.0.0
        Store:    local c1, NOT CONNECTED, revision 9
                  gone
        Applied:  revision 7 of 9
        Planes:
          overlay: 4 rounds, 2 changes, the last in 1.5 ms, 1 ERRORS
        Errors:
          overlay: link x: busy
        Problems:
          network app: is full
        Services:
          service web: web.2: no room; make some
        Features:
          ebpf: used
          tcx: off; filters
          csum_v6: missing (too old); none
        Limits:
          no client addresses
        Flow tables:
          tcp: 24 entries of 262144, 20 established
        Counters:
          new_flow: 12
          no_backend: 1
        Other nodes:
          NAME         STATUS    APPLIED   PROBLEMS
          n2           ready     9         -
          node-three   unknown   0         no nft
        ");
    }
}
