//! **Effect.** `mesh node inspect`.

use super::title;
use crate::api::types::Node;
use crate::cli::format::FormatArg;
use crate::cli::{Session, several};

/// Display detailed information on one or more nodes
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct InspectArgs {
    /// Print the information in a human friendly format
    #[arg(long, conflicts_with = "format")]
    pretty: bool,
    #[command(flatten)]
    format: FormatArg,
    /// Names, IDs, or 'self'
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

pub(super) async fn run(args: InspectArgs, session: Session) -> anyhow::Result<u8> {
    let path = |id: &str| format!("/v1/nodes/{id}");
    if !args.pretty {
        return several::inspect(&session, &args.nodes, path, args.format.format.as_ref(), "Node").await;
    }
    let (found, code) = several::fetch(&session, &args.nodes, path).await?;
    for (place, node) in found.into_iter().enumerate() {
        if place > 0 {
            session.out.line("");
        }
        session.out.bytes(pretty(&serde_json::from_value(node)?).as_bytes());
    }
    Ok(code)
}

fn pretty(node: &Node) -> String {
    let Node { id, started_at, spec, description, status, this: _ } = node;
    let mut text = format!("ID:\t\t\t{id}\nHostname:\t\t{}\n", description.hostname);
    if !spec.labels.is_empty() {
        text.push_str("Labels:\n");
        spec.labels.iter().for_each(|(key, value)| text.push_str(&format!(" - {key}={value}\n")));
    }
    text.push_str(&format!("Started at:\t\t{started_at}\nStatus:\n"));
    text.push_str(&format!(" State:\t\t\t{}\n", title(&status.state)));
    if !status.message.is_empty() {
        text.push_str(&format!(" Message:\t\t{}\n", status.message));
    }
    if !status.down_by.is_empty() {
        text.push_str(&format!(" Down by:\t\t{}\n", status.down_by.join(", ")));
    }
    if let Some(age) = status.agent_age {
        text.push_str(&format!(" Agent seen:\t\t{:.1} s ago\n", age as f64 / 1000.0));
    }
    text.push_str(&format!(" Availability:\t\t{}\n", title(spec.availability.as_str())));
    text.push_str(&format!(" Address:\t\t{}\n", status.addr));
    text.push_str(&format!(" Applied revision:\t{}\n", status.applied_revision));
    text.push_str(&format!("Agent version:\t\t{}\n", description.agent_version));
    text.push_str(&format!(
        "Tunnel:\t\t\tUDP port {}, MTU {}\n",
        description.vxlan_port, description.uplink_mtu
    ));
    if !status.problems.is_empty() {
        text.push_str("Problems:\n");
        status.problems.iter().for_each(|problem| text.push_str(&format!(" - {problem}\n")));
    }
    text
}
