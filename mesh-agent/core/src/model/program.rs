//! What the mesh itself runs for a service: a command, how many times, and how another one takes its place.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::service::word_enum;

word_enum! {
    /// Whether a task goes before the one that replaces it comes.
    #[derive(Default)]
    UpdateOrder, "update order" {
        /// The old one ends, then the new one starts.
        #[default]
        StopFirst = "stop-first",
        /// The new one serves, then the old one is told to stop.
        StartFirst = "start-first",
    }
}

word_enum! {
    /// What to do when a new task fails.
    #[derive(Default)]
    FailureAction, "failure action" {
        /// Nothing more is replaced until someone says how to go on.
        #[default]
        Pause = "pause",
        /// Back to what ran before.
        Rollback = "rollback",
        /// Go on all the same.
        Continue = "continue",
    }
}

word_enum! {
    /// How far the replacement of tasks is, in Docker's words.
    RolloutState, "update state" {
        /// Tasks are replaced.
        Updating = "updating",
        /// A new task failed.
        Paused = "paused",
        /// All are replaced.
        Completed = "completed",
        /// A new task failed, and all go back to what ran before.
        RollbackStarted = "rollback_started",
        /// What ran before failed, too.
        RollbackPaused = "rollback_paused",
        /// All are back.
        RollbackCompleted = "rollback_completed",
    }
}

impl RolloutState {
    /// Whether tasks are being replaced.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Updating | Self::RollbackStarted)
    }

    /// Whether it waits for someone.
    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::RollbackPaused)
    }
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program and its arguments; at least one word.
    pub command: Vec<String>,
    /// `KEY=VALUE`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Which signal asks it to end (`SIGQUIT`); none: SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How it asks for names.
    #[serde(default, skip_serializing_if = "Resolver::is_default")]
    pub resolver: Resolver,
}

/// How a task asks for names: what its resolv.conf(5) says, beside the mesh's own server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Servers for what is not the mesh's; none: the node's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpAddr>,
    /// Domains that names are looked up in, too; `.`: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// `timeout:1`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Resolver {
    /// Whether something can stand in resolv.conf(5): white space would end it.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn word(text: &str) -> Result<(), String> {
        let wrong =
            text.is_empty() || text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
        if wrong { Err(format!("'{text}' is not one word of resolv.conf(5)")) } else { Ok(()) }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How tasks are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// How many at once; 0: all.
    pub parallelism: u32,
    /// How long to wait after some were replaced.
    pub delay: Duration,
    /// What comes first.
    pub order: UpdateOrder,
    /// Whether somebody said so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub order_is_said: bool,
    /// What to do when a new one fails.
    pub failure_action: FailureAction,
    /// How long new ones must have served until all is well.
    pub monitor: Duration,
}

/// Docker's.
impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            order: UpdateOrder::default(),
            order_is_said: false,
            failure_action: FailureAction::default(),
            monitor: Duration::from_secs(5),
        }
    }
}

/// The last replacement of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// How far it is.
    pub state: RolloutState,
    /// When it began.
    pub started: Timestamp,
    /// When it ended; 0: it has not.
    #[serde(default)]
    pub completed: Timestamp,
    /// For people.
    pub message: String,
}

/// What the mesh runs for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Grows with each change of what is executed: tasks of an earlier version are replaced.
    pub version: u64,
    /// What is executed.
    pub run: Run,
    /// How many tasks there are to be.
    pub replicas: u32,
    /// How tasks are replaced.
    pub update: UpdateConfig,
    /// How long a task may take to end once it is asked to, before it is killed; none: [`Self::GRACE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
    /// The last replacement; none: there was none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What was executed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Run>,
}

impl Program {
    /// Docker's.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// How many tasks are replaced at once.
    pub fn parallelism(&self) -> usize {
        let all = self.replicas.max(1);
        let wanted = if self.update.parallelism == 0 { all } else { self.update.parallelism.min(all) };
        wanted as usize
    }

    /// Whether a task of a node that is drained serves until another does in its stead. Not where it was said that there
    /// must not be two.
    pub fn hands_over(&self) -> bool {
        self.update.order == UpdateOrder::StartFirst || !self.update.order_is_said
    }

    /// Whether the replacement of tasks waits for someone.
    pub fn is_paused(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.state.is_paused())
    }
}

/// What a node says of a command that does not run there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailure {
    /// Which version of the program.
    pub version: u64,
    /// How many times in a row.
    pub count: u32,
    /// What went wrong.
    pub message: String,
}
