//! **Effect.** `mesh node ls`.

use super::title;
use crate::api::types::Node;
use crate::cli::format::{self, Column, Format, FormatArg};
use crate::cli::{OK, Session};

const COLUMNS: &[Column] = &[
    ("ID", "ID"),
    ("Hostname", "HOSTNAME"),
    ("Status", "STATUS"),
    ("Availability", "AVAILABILITY"),
    ("Address", "ADDRESS"),
    ("Applied", "APPLIED"),
    ("Self", "SELF"),
];

/// List nodes
///
/// STATUS is Ready; Down when the node does not answer this one, or as managers agree, or has left; Disconnected when it
/// answers others only, or not through the tunnel; Leaving when it says so; Unknown when its agent has shown no life for a while, though its traffic may flow all the same. APPLIED is the newest revision that is in the node's kernel. The node that was asked has a '*'.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LsArgs {
    /// Only display IDs
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: LsArgs, session: Session) -> anyhow::Result<u8> {
    let nodes: Vec<Node> = session.client.get("/v1/nodes").await?;
    let format = args.format.format.as_ref();
    if args.quiet && format.is_none() {
        nodes.iter().for_each(|node| session.out.line(&node.id));
        return Ok(OK);
    }
    // For people the mark is part of the first column, for programs a field of its own.
    let table = matches!(format, None | Some(Format::Table));
    let rows = nodes.into_iter().map(|node| {
        let mark = if table && node.this { " *" } else { "" };
        let mut row = vec![
            format!("{}{mark}", node.id),
            node.description.hostname,
            title(&node.status.state),
            title(node.spec.availability.as_str()),
            node.status.addr,
            node.status.applied_revision.to_string(),
        ];
        if !table {
            row.push(node.this.to_string());
        }
        row
    });
    let columns = if table { &COLUMNS[..COLUMNS.len() - 1] } else { COLUMNS };
    format::list(&session.out, format, columns, rows.collect())?;
    Ok(OK)
}
