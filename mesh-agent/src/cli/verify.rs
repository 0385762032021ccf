//! **Effect.** `mesh verify`: whether every node's kernel is as planned.

use serde_json::Value;

use super::format::{self, Format, FormatArg};
use super::{FAILED, OK, Session, table};
use crate::api::types::{NodeVerification, Verification, VerifyRequest};

/// Compare every node's kernel with what is planned for it
///
/// Devices, routes, neighbours, settings, rules, maps and programs are read and nothing is written. Exits with 1 when
/// something differs, or when a node does not answer.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Mend what differs; exits with 1 when something is left
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: VerifyArgs, session: Session) -> anyhow::Result<u8> {
    let VerifyArgs { repair, format } = args;
    session.out.progress("waiting for every node to compare its kernel with the plan");
    let value: Value = session.client.post("/v1/verify", &VerifyRequest { repair }).await?;
    let found: Verification = serde_json::from_value(value.clone())?;
    match format.format.as_ref() {
        None | Some(Format::Table) => session.out.bytes(text(&found).as_bytes()),
        format => format::records(&session.out, format, "Verification", &[value])?,
    }
    Ok(if found.ok { OK } else { FAILED })
}

fn text(found: &Verification) -> String {
    let rows: Vec<_> = found.nodes.iter().map(row).collect();
    let mut text = table::render(&["NODE", "KERNEL", "DIFFERENCES", "LEFT"], &rows);
    for node in &found.nodes {
        for (object, why) in &node.differences {
            text.push_str(&format!("{}: {object}: {why}\n", node.hostname));
        }
        let told = node.differences.len() as u64;
        if node.found > told {
            text.push_str(&format!("{}: and {} more\n", node.hostname, node.found - told));
        }
    }
    text
}

fn row(node: &NodeVerification) -> Vec<String> {
    let kernel = match node {
        NodeVerification { answered: false, .. } => "no answer",
        NodeVerification { found: 0, .. } => "as planned",
        NodeVerification { left: 0, .. } => "repaired",
        _ => "differs",
    };
    let count = |count: u64| if node.answered { count.to_string() } else { "-".to_owned() };
    vec![node.hostname.clone(), kernel.to_owned(), count(node.found), count(node.left)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_line_and_each_difference_one() {
        let node = |name: &str, answered, found, left, differences: &[(&str, &str)]| NodeVerification {
            node_id: name.to_owned(),
            hostname: name.to_owned(),
            answered,
            found,
            left,
            differences: differences.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        };
        let route = [("overlay: route 10.1.0.0/24", "missing")];
        let nodes = vec![
            node("n1", true, 0, 0, &[]),
            node("n2", true, 2, 2, &route),
            node("n3", true, 1, 0, &route),
            node("n4", false, 0, 0, &[]),
        ];
        insta::assert_snapshot!(text(&Verification { ok: false, nodes }), @r"
        NODE   KERNEL       DIFFERENCES   LEFT
        n1     as planned   0             0
        n2     differs      2             2
        n3     repaired     1             0
        n4     no answer    -             -
        n2: overlay: route 10.1.0.0/24: missing
        n2: and 1 more
        n3: overlay: route 10.1.0.0/24: missing
        ");
    }
}
