//! **Effect.** Waits until a service runs as many tasks as it should, and shows how far that is, as Docker does.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::converge::{self, LOOK};
use super::{OK, Session};
use crate::api::types::{Changed, Node, Service, Task};

/// A replacement takes its time, but a task that comes is a step.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits until every node forwards as the change says and, where the mesh runs the service's tasks, until these serve.
pub(super) async fn converged(session: &Session, changed: &Changed) -> anyhow::Result<u8> {
    let path = format!("/v1/services/{}", changed.id);
    if session.client.get::<Service>(&path).await?.spec.program.is_none() {
        converge::wait(session, "Service", changed.revision).await?;
        return Ok(OK);
    }
    let (mut step, mut shown) = (Instant::now(), None);
    // Only then is a rollback not what was asked for.
    let mut updated = false;
    loop {
        let service: Service = session.client.get(&path).await?;
        let tasks: Vec<Task> = session.client.get(&format!("{path}/tasks")).await?;
        let wanted = service.service_status.desired_tasks;
        let state = service.update_status.as_ref().map_or("", |status| status.state.as_str());
        if state.ends_with("paused") {
            let message = service.update_status.map(|status| status.message).unwrap_or_default();
            bail!("service {message}");
        }
        updated |= state == "updating";
        let replacing = matches!(state, "updating" | "rollback_started");
        // While tasks are replaced, only those of the newest version count.
        let newest = tasks.iter().filter_map(|task| task.program).max();
        let serving = tasks.iter().filter(|task| task.in_balance && task.program.is_some());
        let done = serving.filter(|task| !replacing || task.program == newest).count() as u64;
        let others = tasks.len() as u64 > wanted
            && tasks.iter().any(|task| task.program.is_some() && !task.in_balance);
        let progress = (done, wanted, state.to_owned());
        if shown.as_ref() != Some(&progress) {
            session.out.progress(&format!("overall progress: {done} out of {wanted} tasks"));
            (step, shown) = (Instant::now(), Some(progress));
        }
        if done == wanted && !replacing && !others {
            session.out.done("verify: Service converged");
            if updated && state == "rollback_completed" {
                bail!(
                    "service rolled back: {}",
                    service.update_status.map(|s| s.message).unwrap_or_default()
                );
            }
            return Ok(OK);
        }
        if step.elapsed() > PATIENCE {
            bail!(stuck(session, &service.spec.name, done, wanted).await?);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why it takes so long, as far as nodes say.
async fn stuck(session: &Session, service: &str, done: u64, wanted: u64) -> anyhow::Result<String> {
    let nodes: Vec<Node> = session.client.get("/v1/nodes").await?;
    let about = format!("service {service}: ");
    let problems = nodes.iter().flat_map(|node| &node.status.problems).filter(|p| p.starts_with(&about));
    let problems: Vec<_> = problems.cloned().collect();
    let why = if problems.is_empty() { String::new() } else { format!("; {}", problems.join("; ")) };
    Ok(format!(
        "after {} s without a step, {done} out of {wanted} tasks of service {service} serve{why}",
        PATIENCE.as_secs()
    ))
}
