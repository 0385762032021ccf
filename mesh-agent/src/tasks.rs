//! **Effect.** This node's tasks: registered, attached, watched, stopped, forgotten.

use mesh_core::change::{self, TaskChange, TaskRequest};
use mesh_core::model::{Task, TaskId};

use crate::control::{Control, ControlError, Done};

/// This node's tasks. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    control: Control,
}

impl Tasks {
    /// Tasks of the node that `control` speaks for.
    pub fn new(control: Control) -> Self {
        Self { control }
    }

    /// Registers a task and waits until it is attached to its networks and has DNS.
    pub async fn register(&self, request: TaskRequest) -> Result<Done<Task>, ControlError> {
        let node = self.control.node().clone();
        self.control.change(move |world, fresh| change::add_task(world, &node, request.clone(), fresh)).await
    }

    /// Changes a task of this node.
    pub async fn change(&self, id: &TaskId, change: TaskChange) -> Result<Done<Task>, ControlError> {
        let node = self.control.node().clone();
        self.control.change(|world, fresh| change::change_task(world, &node, id, change.clone(), fresh)).await
    }

    /// Removes all trace of a task of this node.
    pub async fn forget(&self, id: &TaskId) -> Result<Done<Task>, ControlError> {
        let node = self.control.node().clone();
        self.control.change(|world, _| change::forget_task(world, &node, id)).await
    }
}
