//! **Effect.** `mesh top`: the mesh as it changes, in a terminal.

mod draw;
mod input;
mod live;
mod once;
mod read;
mod screen;
mod style;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use mesh_core::top::{Top, View};

use super::Session;
use super::format::FormatArg;
use crate::api::types::parse_duration;

/// Show services, tasks and nodes, and what this node sends to them, as it changes
///
/// Tab, or 1, 2, 3: services, tasks, nodes. s, < and > choose the column to sort by, r turns the order round, / filters, ?
/// explains all keys, q ends. Rates need the eBPF data plane; what is not known is '-'.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one table and end, as is done with --format and where standard output is no terminal; rates are those of one
    /// interval
    #[arg(long)]
    once: bool,
    /// Which table to begin with
    #[arg(long, value_enum, default_value_t = Table::Services)]
    view: Table,
    /// Sort it by this column: the most first, or by the alphabet
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    #[command(flatten)]
    format: FormatArg,
}

/// A table.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    Services,
    Tasks,
    Nodes,
}

pub(super) async fn run(args: TopArgs, session: Session) -> anyhow::Result<u8> {
    let view = match args.view {
        Table::Services => View::Services,
        Table::Tasks => View::Tasks,
        Table::Nodes => View::Nodes,
    };
    let mut top = Top::new(view, Duration::ZERO, args.interval + PATIENCE);
    if let Some(column) = &args.sort {
        top.sort(view, sorted(view, column)?);
    }
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if args.once || args.format.format.is_some() || dumb || !std::io::stdout().is_terminal() {
        once::run(top, args.interval, args.format.format.as_ref(), &session).await
    } else {
        live::run(top, args.interval, &session).await
    }
}

/// How much longer than until the next look an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Often enough to see something, and seldom enough to do something else.
fn interval(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&every) {
        Ok(every)
    } else {
        Err("it has to be from 100ms to 1h".to_owned())
    }
}

/// A column by its title, `/S` or not.
fn sorted(view: View, name: &str) -> anyhow::Result<usize> {
    let plain = |title: &str| title.to_lowercase().trim_end_matches("/s").to_owned();
    let columns = view.columns();
    match columns.iter().position(|column| plain(column.title) == plain(name)) {
        Some(place) => Ok(place),
        None => {
            let all: Vec<_> = columns.iter().map(|column| column.title.to_lowercase()).collect();
            bail!("{} have no column '{name}'; they have {}", view.title().to_lowercase(), all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_named_as_they_are_shown() {
        for (name, place) in [("service", 0), ("FLOWS/S", 3), ("flows", 3), ("tasks", 1)] {
            assert_eq!(sorted(View::Services, name).unwrap(), place, "{name}");
        }
        let error = sorted(View::Nodes, "cpu").unwrap_err().to_string();
        assert!(error.starts_with("nodes have no column 'cpu'; they have node, state, "), "{error}");
    }

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("1s"), Ok(Duration::from_secs(1)));
        for wrong in ["0s", "99ms", "2h", "1", "x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
