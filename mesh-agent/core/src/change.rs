//! **Decision.** What is asked of the mesh, checked against a snapshot, becomes one transaction or one refusal.
//!
//! Each function here is total and leaves nothing half-done: either every check holds on the snapshot and the
//! transaction's own conditions make sure that they still hold when it commits, or a [`Refusal`] says what is
//! wrong, where, and what to do. After a conflict the caller takes a newer snapshot and asks again.

mod health;
mod identity;
mod janitor;
mod network;
mod node;
mod ports;
mod program;
mod promotion;
mod rotation;
mod saved;
mod service;
mod task;
mod token;
mod trust;
mod verdict;
mod verification;

pub use health::HealthWish;
pub use identity::{Applicant, admit, begin, is_certified, renew, set_role, standing};
pub use janitor::{is_first, janitor};
pub(crate) use network::overlap;
pub use network::{NetworkRequest, create_network, remove_network};
pub use node::{Me, NodeFacts, claim_blocks, depart, join, reassert, refresh, remove_node, set_availability};
pub use ports::protected_ports;
pub use program::ProgramWish;
pub use promotion::{demote, promote};
pub use rotation::{Follow, begin_rotation, follow, rotated, settle_rotation, spent};
pub use saved::go_on_alone;
pub use service::{
    AttachmentRequest, PortPattern, ServiceRequest, ServiceUpdate, create_service, remove_service,
    update_service,
};
pub use task::{
    TaskChange, TaskRequest, add_task, change_task, forget_task, reattach_task, set_task_availability,
    stop_task,
};
pub use token::{TOKEN_LIFE, TokenTerms, add_token};
pub use trust::{
    TrustDuty, begin_member_rotation, done as trust_done, is_rotating as members_rotate,
    member_rotation_progress, trust_duty,
};
pub use verdict::{Outage, outage, verdicts};
pub use verification::{VERIFICATION_LIFE, awaited, begin_verification, end_verification};

use crate::kv::Txn;
use crate::model::{InvalidName, Timestamp};

/// What a decision may not make up itself.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    /// Random; becomes the id of what is created.
    pub id: [u8; 16],
    /// The time.
    pub now: Timestamp,
}

/// A transaction, and what it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<T> {
    /// To commit.
    pub txn: Txn,
    /// What will be there then.
    pub result: T,
}

/// Why something cannot be done. Texts follow Docker's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense by itself.
    #[error("{0}")]
    Invalid(String),
    /// It names something that is not there.
    #[error("{kind} {reference} not found")]
    NotFound {
        /// `network`, `service`, `task` or `node`.
        kind: &'static str,
        /// As it was named.
        reference: String,
    },
    /// Something else is in the way.
    #[error("{0}")]
    Conflict(String),
    /// Nothing is left to give out.
    #[error("{0}")]
    Exhausted(String),
}

impl Refusal {
    pub(crate) fn not_found(kind: &'static str, reference: &str) -> Self {
        Self::NotFound { kind, reference: reference.to_owned() }
    }
}

impl From<InvalidName> for Refusal {
    fn from(error: InvalidName) -> Self {
        Self::Invalid(error.to_string())
    }
}
