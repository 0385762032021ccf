//! **Effect.** Tasks in a table, for `task ls` and `service ps`.

use crate::api::types::{Health, Task, TaskState};
use crate::cli::ago::ago;
use crate::cli::format::{self, Column, Format};
use crate::cli::output::Out;
use crate::cli::table::short;

const COLUMNS: &[Column] = &[
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Node", "NODE"),
    ("DesiredState", "DESIRED STATE"),
    ("CurrentState", "CURRENT STATE"),
    ("Address", "ADDRESS"),
    ("Error", "ERROR"),
];

/// Prints tasks in the order given.
pub(in crate::cli) fn print(
    out: &Out,
    quiet: bool,
    format: Option<&Format>,
    tasks: &[Task],
) -> anyhow::Result<()> {
    if quiet && format.is_none() {
        tasks.iter().for_each(|task| out.line(short(&task.id)));
        return Ok(());
    }
    format::list(out, format, COLUMNS, tasks.iter().map(row).collect())
}

fn row(task: &Task) -> Vec<String> {
    let addresses = task.networks_attachments.iter().flat_map(|attachment| &attachment.addresses);
    let addresses: Vec<_> = addresses.map(|address| address.split('/').next().unwrap_or(address)).collect();
    let state = title(task.status.state);
    vec![
        short(&task.id).to_owned(),
        task.name.clone(),
        task.node_name.clone(),
        title(task.desired_state),
        format!("{state} {}", ago(&task.status.timestamp)),
        addresses.join(", "),
        error(task),
    ]
}

/// Why it failed, or why a task that runs gets nothing, or something though it is sick.
fn error(task: &Task) -> String {
    if !task.status.err.is_empty() {
        return format!("\"{}\"", task.status.err);
    }
    match task.status.state {
        // Its service panics.
        TaskState::Running if task.in_balance && task.health == Health::Unhealthy => {
            format!("unhealthy, and gets flows as too few others are healthy: {}", task.status.message)
        }
        TaskState::Running => task.reason.clone(),
        TaskState::Starting => task.status.message.clone(),
        _ => String::new(),
    }
}

fn title(state: TaskState) -> String {
    let word = state.as_str();
    format!("{}{}", word[..1].to_uppercase(), &word[1..])
}
