//! **Decision.** What one node's kernel and DNS must look like, for a snapshot of the world.
//!
//! [`desired`] is the table of contents. It is total: any snapshot, however odd, gives a plan and a list of
//! problems, never a panic. A plan leaves no choice to whoever carries it out.

mod balance;
mod overlay;

pub use balance::{Backend, Balance, Family, Frontend, NetworkGate, Pool, PortGate};
pub use overlay::{DEVICE_PREFIX, Endpoint, Mac, Overlay, Route, VTEP_DEVICE, Vtep, endpoint_device};

use crate::dns::Zone;
use crate::kv::Rev;
use crate::model::{NodeId, Snapshot};

/// Something that cannot be as it should, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What it is about: `network app`, `node n2`.
    pub about: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// All that one node must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The newest revision that this comes from.
    pub rev: Rev,
    /// Devices, neighbours and routes.
    pub overlay: Overlay,
    /// Frontends, backends and gates: the contract of the data planes.
    pub balance: Balance,
    /// What DNS answers.
    pub zone: Zone,
    /// What cannot be as it should.
    pub problems: Vec<Problem>,
}

/// Plans one node. A node that the snapshot does not know gets nothing.
pub fn desired(world: &Snapshot, node: &NodeId) -> Desired {
    let Some(me) = world.nodes.get(node) else {
        return Desired { rev: world.changed, ..Desired::default() };
    };
    let mut problems = Vec::new();
    let overlay = overlay::plan(world, me, &mut problems);
    let balance = balance::plan(world, me, &overlay);
    for (key, why) in &world.poison {
        problems.push(Problem {
            about: format!("record {key}"),
            message: format!("cannot be read and is ignored: {why}"),
        });
    }
    problems.sort();
    Desired { rev: world.changed, overlay, balance, zone: Zone::build(world), problems }
}
