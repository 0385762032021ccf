//! Who is who: what nodes are, the certificates that they have, and the tokens with which they join.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::service::word_enum;
use super::{NodeId, Timestamp};

word_enum! {
    /// What a node is.
    Role, "role" {
        /// Runs tasks and balances; writes what is its own.
        Worker = "worker",
        /// Keeps the records, too, and may change all of them.
        Manager = "manager",
    }
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Its serial number, 32 hexadecimal digits.
    pub serial: String,
    /// When it ends.
    pub until: Timestamp,
}

/// What managers know of a node that has certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// What its next certificate says that it is.
    pub role: Role,
    /// Its certificates that have not ended.
    pub certificates: Vec<Certificate>,
    /// The hash of the token that it joined with: the same node may ask again when the answer got lost.
    #[serde(default)]
    pub token: String,
}

/// Why a certificate that has not ended is no longer good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// The node that it was issued to.
    pub node: String,
    /// When it ends by itself.
    pub until: Timestamp,
}

/// A token as it is stored: who reads this cannot join with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredToken {
    /// SHA-256 of its secret, 64 hexadecimal digits.
    pub hash: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// How many more nodes may join with it; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// All tokens of one role.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tokens {
    /// Oldest first.
    pub tokens: Vec<StoredToken>,
}

/// The mesh's authority was replaced, or is being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The name of the one that counts from now on.
    pub authority: String,
    /// The one before is trusted no longer.
    pub settled: bool,
}

/// The authority of etcd's members was replaced, or is being.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRotation {
    /// The name of the one that counts in the end.
    pub authority: String,
    /// What managers do.
    pub step: TrustStep,
    /// Which of them have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<NodeId>,
    /// Whose member may start anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<NodeId>,
}

/// How far members are with another authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustStep {
    /// They begin to trust both.
    Both,
    /// They get certificates of the next one.
    Next,
    /// They begin to trust that one alone.
    Alone,
    /// They have done all.
    Settled,
}
