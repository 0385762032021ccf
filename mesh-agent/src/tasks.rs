//! **Effect.** This node's tasks: registered, attached, watched, stopped, forgotten.

use mesh_core::change::{self, Me, TaskChange, TaskRequest};
use mesh_core::model::{Task, TaskId};
use tokio::sync::watch;

use crate::control::{Control, ControlError, Done};

/// This node's tasks. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    control: Control,
    me: watch::Receiver<Option<Me>>,
}

impl Tasks {
    /// Tasks of the node that `control` speaks for, once it has joined.
    pub fn new(control: Control, me: watch::Receiver<Option<Me>>) -> Self {
        Self { control, me }
    }

    /// This agent as its node's owner.
    fn me(&self) -> Result<Me, ControlError> {
        self.me.borrow().clone().ok_or_else(|| {
            ControlError::Local("this node has not joined the mesh yet: its store does not answer".to_owned())
        })
    }

    /// Registers a task and waits until it is attached to its networks and has DNS.
    pub async fn register(&self, request: TaskRequest) -> Result<Done<Task>, ControlError> {
        let me = self.me()?;
        self.control.change(move |world, fresh| change::add_task(world, &me, request.clone(), fresh)).await
    }

    /// Changes a task of this node.
    pub async fn change(&self, id: &TaskId, change: TaskChange) -> Result<Done<Task>, ControlError> {
        let me = self.me()?;
        self.control.change(|world, fresh| change::change_task(world, &me, id, change.clone(), fresh)).await
    }

    /// Removes all trace of a task of this node.
    pub async fn forget(&self, id: &TaskId) -> Result<Done<Task>, ControlError> {
        let me = self.me()?;
        self.control.change(|world, _| change::forget_task(world, &me, id)).await
    }
}
