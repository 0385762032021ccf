//! **Effect.** Waits while tasks leave: every node lets go of them, and their connections end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::Session;
use super::converge::{self, LOOK};
use crate::api::types::{Node, Service, Task, parse_duration};

/// What is under way when the last node has let go is counted by then.
const SETTLE: Duration = Duration::from_secs(1);
/// How long connections may go on where no service says so.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the mesh waits until others serve, and a little.
const HANDOVER: Duration = Duration::from_secs(310);
/// What nodes, signals and their grace take beside that.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long connections of tasks may go on, by service, and how long tasks may take to end then.
pub(super) struct Timeouts(BTreeMap<String, (Duration, Duration)>);

impl Timeouts {
    /// As they are now; a service that goes takes its own with it.
    pub(super) async fn read(session: &Session) -> anyhow::Result<Self> {
        let services: Vec<Service> = session.client.get("/v1/services").await?;
        let read = |text: &Option<String>| parse_duration(text.as_deref()?).ok();
        let known = services.into_iter().filter_map(|service| {
            let grace = service.spec.program.and_then(|program| read(&program.stop_grace_period));
            Some((service.id, (read(&service.spec.drain_timeout)?, grace.unwrap_or_default())))
        });
        Ok(Self(known.collect()))
    }

    /// The longest of some tasks' connections.
    fn of(&self, tasks: &[Task]) -> Duration {
        let of = |task: &Task| self.0.get(&task.service_id).map_or(DRAIN_TIMEOUT, |(drain, _)| *drain);
        tasks.iter().map(of).max().unwrap_or_default()
    }

    /// By when the last of some tasks has ended.
    fn to_the_end(&self, tasks: &[Task]) -> Duration {
        let of = |task: &Task| {
            self.0.get(&task.service_id).map_or(DRAIN_TIMEOUT, |(drain, grace)| drain.saturating_add(*grace))
        };
        PATIENCE.saturating_add(tasks.iter().map(of).max().unwrap_or_default())
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Nodes that send nothing new, of those that show life.
    nodes: (usize, usize),
    /// Connections that are left; none: a node has not counted yet.
    connections: Option<u64>,
}

impl Progress {
    fn of(nodes: &[Node], tasks: &[Task], revision: u64) -> Self {
        let live: Vec<_> = nodes.iter().filter(|node| node.status.state == "ready").collect();
        let done = live.iter().filter(|node| node.status.applied_revision >= revision).count();
        // Nobody counts on a node that shows no life.
        let counted = tasks.iter().filter(|task| live.iter().any(|node| node.id == task.node_id));
        Self { nodes: (done, live.len()), connections: counted.map(|task| task.connections).sum() }
    }

    fn confirmed(self) -> bool {
        self.nodes.0 == self.nodes.1
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (done, all) = self.nodes;
        write!(f, "{done} out of {all} nodes")?;
        match self.connections {
            Some(1) => f.write_str(", 1 connection left"),
            Some(count) => write!(f, ", {count} connections left"),
            None => Ok(()),
        }
    }
}

/// Waits until no node sends anything new to tasks and they have no connections, which they are given time for. Those for
/// which `is_replaced` holds go only when others serve in their stead, and are waited for until they have ended.
pub(super) async fn drained(
    session: &Session,
    revision: u64,
    is_leaving: impl Fn(&Task) -> bool,
    is_replaced: impl Fn(&Task) -> bool,
) -> anyhow::Result<()> {
    let timeouts = Timeouts::read(session).await?;
    let (begun, mut confirmed, mut shown, mut waits) = (Instant::now(), None, None, None);
    let mut started = begun;
    loop {
        let nodes: Vec<Node> = session.client.get("/v1/nodes").await?;
        let mut tasks: Vec<Task> = session.client.get("/v1/tasks").await?;
        // Whatever does not run has no connections, and is not counted.
        tasks.retain(|task| is_leaving(task) && task.status.state == crate::api::types::TaskState::Running);
        let waiting: Vec<_> = tasks.iter().filter(|task| is_replaced(task) && task.in_balance).collect();
        if !waiting.is_empty() && begun.elapsed() < HANDOVER {
            started = Instant::now();
            if waits.replace(waiting.len()) != Some(waiting.len()) {
                let names: Vec<_> = waiting.iter().map(|task| task.name.as_str()).collect();
                session.out.progress(&format!("waiting until others serve instead of {}", names.join(", ")));
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        let ends = tasks.iter().any(&is_replaced);
        let progress = Progress::of(&nodes, &tasks, revision);
        if shown.replace(progress) != Some(progress) {
            session.out.progress(&format!("overall progress: {progress}"));
        }
        if !progress.confirmed() && started.elapsed() > converge::PATIENCE {
            bail!(converge::late(&nodes, revision));
        }
        if progress.confirmed() {
            let since = confirmed.get_or_insert_with(Instant::now).elapsed();
            let left = progress.connections.filter(|count| *count > 0);
            if tasks.is_empty() || !ends && since > SETTLE && progress.connections == Some(0) {
                session.out.done("verify: Drained");
                return Ok(());
            }
            let timeout = if ends { timeouts.to_the_end(&tasks) } else { timeouts.of(&tasks) };
            if since > timeout.max(SETTLE) {
                let left = left.map_or_else(|| "not counted".to_owned(), |count| count.to_string());
                session.out.done(&format!(
                    "verify: Drained; connections that go on after {} s: {left}",
                    timeout.as_secs()
                ));
                return Ok(());
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until tasks that are told to stop have ended. `timeouts` are from before, `all` is how many there were.
pub(super) async fn ended(
    session: &Session,
    revision: u64,
    timeouts: &Timeouts,
    is_leaving: impl Fn(&Task) -> bool,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let (mut shown, mut all, mut patience) = (None, 0, PATIENCE);
    loop {
        let nodes: Vec<Node> = session.client.get("/v1/nodes").await?;
        let mut left: Vec<Task> = session.client.get("/v1/tasks").await?;
        left.retain(&is_leaving);
        all = all.max(left.len());
        patience = patience.max(timeouts.to_the_end(&left));
        let running: Vec<Task> = left
            .iter()
            .filter(|task| task.status.state == crate::api::types::TaskState::Running)
            .cloned()
            .collect();
        let progress = Progress::of(&nodes, &running, revision);
        let text = format!("overall progress: {} out of {all} tasks; {progress}", all - left.len());
        if all > 0 && shown.as_ref() != Some(&text) {
            session.out.progress(&text);
            shown = Some(text);
        }
        if left.is_empty() {
            session.out.done("verify: Tasks ended");
            return Ok(());
        }
        if started.elapsed() > patience {
            let names: Vec<_> = left.iter().map(|task| task.name.as_str()).collect();
            bail!(
                "after {} s these have not ended: {}; their nodes go on trying",
                patience.as_secs(),
                names.join(", ")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_as_far_as_it_is_known() {
        let text = |connections| Progress { nodes: (2, 3), connections }.to_string();
        assert_eq!(text(None), "2 out of 3 nodes");
        assert_eq!(text(Some(1)), "2 out of 3 nodes, 1 connection left");
        assert_eq!(text(Some(0)), "2 out of 3 nodes, 0 connections left");
    }
}
