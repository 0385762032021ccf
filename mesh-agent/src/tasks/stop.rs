//! **Effect.** The end of a task: out of every node's balance first, then its processes.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::kv::Rev;
use mesh_core::model::{EndpointMode, Origin, Task, TaskId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::{info, warn};

use super::{Tasks, flows, process};
use crate::netns::Netns;

/// How long to wait for other nodes to stop sending; one that does not answer must not hold a stop up for ever.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// What is under way when the last node has let go may still end.
const SETTLE: Duration = Duration::from_millis(500);

/// What a task is given to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How long its connections may go on.
    pub(super) drain: Duration,
    /// From SIGTERM to SIGKILL.
    pub(super) grace: Duration,
}

impl Tasks {
    /// Stops a task and forgets it.
    pub(super) async fn stop(self, task: Arc<Task>, patience: Patience) -> TaskId {
        let world = self.control.world();
        let name = world.task_name(&task);
        let asked = world.stops.get(&task.id).copied().unwrap_or(world.changed);
        self.acknowledged(asked).await;
        // Whoever was told its own address, and not that of a VIP, may have it for a while. What a node says of that is as new
        // as that it has let go: what it told before is in it, and it tells nobody since.
        let now = self.control.world();
        let is_dnsrr = |id| world.services.get(id).is_some_and(|service| service.mode == EndpointMode::Dnsrr);
        let is_referred = |id| now.live.values().any(|live| live.referred.contains(id));
        let told = task.service.as_ref().is_some_and(|id| is_dnsrr(id) || is_referred(id));
        tokio::time::sleep(if told { self.ttl + SETTLE } else { SETTLE }).await;
        if task.service.is_some() {
            let idle = flows::ended(&task.origin);
            if tokio::time::timeout(patience.drain, idle).await.is_err() {
                info!(task = %name, "still has flows after {} s", patience.drain.as_secs());
            }
        }
        // What others run is theirs to end.
        if let Origin::Process { pid, start, supervised: true } = &task.origin {
            info!(task = %name, "stopping");
            end(&task.origin, *pid, *start, patience.grace).await;
        }
        self.ended(&task).await;
        task.id.clone()
    }

    /// Waits until every node that shows life has applied a revision.
    async fn acknowledged(&self, rev: Rev) {
        let mut worlds = self.control.worlds();
        let all = worlds.wait_for(|world| world.live.values().all(|live| live.applied >= rev));
        if tokio::time::timeout(ACKNOWLEDGE, all).await.is_err() {
            let world = self.control.world();
            let late: Vec<_> = world
                .live
                .iter()
                .filter(|(_, live)| live.applied < rev)
                .filter_map(|(id, _)| Some(world.nodes.get(id)?.name.to_string()))
                .collect();
            warn!(
                nodes = late.join(", "),
                "these nodes have not confirmed in time that they send nothing new"
            );
        }
    }
}

/// SIGTERM to the supervisor, which passes it on; SIGKILL to all that is left in the task's namespace.
async fn end(origin: &Origin, pid: u32, start: u64, grace: Duration) {
    // Opened first: once the last process is gone there is no namespace to look into.
    let Ok(netns) = Netns::of_origin(origin) else { return };
    // After a reboot a number may be anybody's. Never the node's own processes.
    if Netns::own().is_ok_and(|own| own.is(&netns)) {
        return;
    }
    let Ok(raw) = i32::try_from(pid) else { return };
    let _ = kill(Pid::from_raw(raw), Signal::SIGTERM);
    if tokio::time::timeout(grace, process::ended(pid, start)).await.is_ok() && members(&netns).is_empty() {
        return;
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let left = members(&netns);
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The processes of a network namespace.
fn members(netns: &Netns) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| netns.is_at(Path::new(&format!("/proc/{pid}/ns/net"))))
        .map(Pid::from_raw)
        .collect()
}
