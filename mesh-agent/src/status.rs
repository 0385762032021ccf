//! **Fact.** What came of the last rounds: the one truth behind API, CLI and `mesh status`.

use std::collections::BTreeMap;

use mesh_core::kv::Rev;
use mesh_core::model::Verified;
use mesh_core::plan::Problem;

use crate::dataplane::Feature;
use crate::liveness::Masks;
use crate::plane::Applied;

/// How a plane fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaneStatus {
    /// What its last round did.
    pub last: Applied,
    /// How many rounds there were.
    pub rounds: u64,
    /// How many objects all rounds touched.
    pub changed: u64,
    /// How long the last round took, microseconds.
    pub micros: u64,
    /// How long all rounds took, microseconds.
    pub total_micros: u64,
}

/// How the connection to the store fares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Watching, nothing missed.
    pub connected: bool,
    /// `local`, `gateway` or `external`.
    pub engine: String,
    /// Which store.
    pub cluster: String,
    /// The newest revision that was seen.
    pub rev: Rev,
    /// Why it is not connected, or what is held back.
    pub problem: Option<String>,
}

/// The agent's state, published as a whole after every round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Everything up to this revision was planned and tried.
    pub planned: Rev,
    /// Everything up to this revision is in the kernel.
    pub applied: Rev,
    /// The store.
    pub store: StoreHealth,
    /// By plane.
    pub planes: BTreeMap<&'static str, PlaneStatus>,
    /// Other nodes that do not answer this one.
    pub silent: Masks,
    /// What the plan could not do.
    pub problems: Vec<Problem>,
    /// Which features of the kernel the data plane uses.
    pub features: Vec<Feature>,
    /// What the data plane in use cannot do, in words.
    pub limits: Vec<String>,
    /// What was found when all nodes were asked last to compare.
    pub verified: Option<Verified>,
}
