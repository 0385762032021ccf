//! **Effect.** This node leaves its cluster, and is a mesh of its own again, without any records.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_core::change;
use tokio::time::timeout;

use super::{Cluster, ClusterError, Role, disk, token};

/// How long the others may take to hear of it.
const TOLD: Duration = Duration::from_secs(10);

impl Cluster {
    /// Leaves. A manager, and a node that cannot tell the others, only when that is forced.
    pub async fn leave(&self, force: bool) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        let Some(role) = self.role() else {
            return Err(ClusterError::Conflict("This node is not part of a cluster".to_owned()));
        };
        let world = self.0.control.world();
        if !force {
            self.may_leave(role)?;
        }
        if world.managers.len() != 1 || role == Role::Worker {
            // The agent of a node that is removed ends, which may be before all is done here.
            self.0.changes.store(true, Ordering::Relaxed);
            let told = self.0.control.change(|world, _| change::remove_node(world, self.0.node.as_str(), true));
            let failed = match timeout(TOLD, told).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("the store does not answer in time".to_owned()),
            };
            if let Some(why) = failed.filter(|_| !force) {
                self.0.changes.store(false, Ordering::Relaxed);
                return Err(ClusterError::Conflict(format!(
                    "the others cannot be told ({why}); leave all the same with --force"
                )));
            }
        }
        disk::remove(&self.0.state_dir.join("cluster.json"))?;
        self.own().remove().await?;
        token::forget(&self.0.state_dir)?;
        self.set_aside(true)?;
        self.start_again();
        Ok(())
    }

    fn may_leave(&self, role: Role) -> Result<(), ClusterError> {
        let world = self.0.control.world();
        if role == Role::Manager {
            let more = match world.managers.len() {
                1 => "Removing the last manager erases all current state of the cluster. Use `--force` to ignore this \
                      message."
                    .to_owned(),
                _ => format!(
                    "Demote it first ('mesh cluster demote {}'). Use `--force` to ignore this message.",
                    world.nodes.get(&self.0.node).map_or("NODE", |node| node.name.as_str())
                ),
            };
            return Err(ClusterError::Conflict(format!(
                "You are attempting to leave the cluster on a node that is participating as a manager. {more}"
            )));
        }
        let tasks = world.tasks.values().filter(|task| task.node == self.0.node).count();
        if tasks > 0 {
            return Err(ClusterError::Conflict(format!(
                "{tasks} tasks run on this node and would lose their network: stop them first, or use --force"
            )));
        }
        Ok(())
    }
}
