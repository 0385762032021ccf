//! **Effect.** This node leaves its cluster, and is a mesh of its own again, without any records.

use std::time::Duration;

use mesh_core::change;
use mesh_core::model::Role;
use tracing::warn;

use super::{Cluster, ClusterError};
use crate::disk;

/// How long the records may take to say that it left: others were told already, and will not hear it soon.
const WRITTEN: Duration = Duration::from_secs(2);

impl Cluster {
    /// Leaves. A manager, and a node that runs tasks, only when that is forced. The others keep its record until it is removed
    /// (`mesh node rm`), as Docker's do: a worker has no right to remove any.
    pub async fn leave(&self, force: bool) -> Result<(), ClusterError> {
        let _busy = self.0.busy.lock().await;
        let Some(role) = self.role() else {
            return Err(ClusterError::Conflict("This node is not part of a cluster".to_owned()));
        };
        if !force {
            self.may_leave(role)?;
        }
        let leaving = self.0.messenger.as_ref().map(|messenger| messenger.leave());
        self.depart().await;
        disk::remove(&self.0.state_dir.join("cluster.json"))?;
        self.own().remove().await?;
        self.files().remove().map_err(anyhow::Error::from)?;
        self.set_aside(true)?;
        if let Some(leaving) = leaving {
            leaving.for_good();
        }
        self.start_again();
        Ok(())
    }

    /// The node's record says that it left, if that can still be written.
    async fn depart(&self) {
        let control = &self.0.control;
        let written = control.change(|world, _| change::depart(world, control.node()));
        match tokio::time::timeout(WRITTEN, written).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!("the others' records do not say that this node left: {error}"),
            Err(_) => warn!("the others' records do not say that this node left: that took too long"),
        }
    }

    fn may_leave(&self, role: Role) -> Result<(), ClusterError> {
        let world = self.0.control.world();
        if role == Role::Manager {
            let more = match world.manager_ids().count() {
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
        let tasks = world.tasks.on(&self.0.node).len();
        if tasks > 0 {
            return Err(ClusterError::Conflict(format!(
                "{tasks} tasks run on this node and would lose their network: stop them first, or use --force"
            )));
        }
        Ok(())
    }
}
