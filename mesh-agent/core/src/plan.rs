//! **Decision.** What one node's kernel and DNS must look like, for a snapshot of the world.
//!
//! [`desired`] is the table of contents. It is total: any snapshot, however odd, gives a plan and a list of
//! problems, never a panic. A plan leaves no choice to whoever carries it out.

mod balance;
mod ground;
mod last;
mod mask;
mod overlay;
mod part;
mod ramp;

pub use balance::{Backend, Balance, Family, Frontend, NetworkGate, Pool, PortGate, Site};
pub(crate) use mask::leave_out;
pub use overlay::{
    DEVICE_PREFIX, Endpoint, Mac, Overlay, Route, VTEP_DEVICE, Vtep, endpoint_device, networks, own_address,
};

use std::borrow::Cow;

use crate::change::overlap;
use crate::dns::Zone;
use crate::kv::Rev;
use crate::liveness::Masks;
use crate::model::{Node, NodeId, Snapshot, Timestamp};
use crate::records;
use last::Last;

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
    /// When the same snapshot gives another plan by itself; none: never.
    pub next: Option<Timestamp>,
}

/// Plans one node, round after round. The plans are those of [`desired`]: of what a change concerns the last plan's part is
/// taken away and a new one put in, and the rest is shared with it.
#[derive(Debug, Default)]
pub struct Planner {
    last: Option<Last>,
}

impl Planner {
    /// As [`desired`], while these get no new flows.
    pub fn desired(&mut self, world: &Snapshot, node: &NodeId, masks: &Masks, now: Timestamp) -> Desired {
        let last = self.last.take();
        let Some(me) = world.nodes.get(node) else {
            return Desired { rev: world.changed, ..Desired::default() };
        };
        let mut problems = Vec::new();
        let world = &without_own_underlay(world, me, &mut problems);
        let next = last.and_then(|last| last.go_on(world, me, masks, now));
        let last = self.last.insert(next.unwrap_or_else(|| Last::begin(world, me, masks, now)));
        problems.extend(last.problems().cloned());
        problems.extend(mask::problems(world, masks));
        for (key, why) in &world.poison {
            let instead = match records::in_force(world, key) {
                Some(_) => "and what it was before stays in force",
                None => "as if it were not there",
            };
            let message = format!("is set aside, {instead}, until it is written anew: {why}");
            problems.push(Problem { about: format!("record {key}"), message });
        }
        problems.sort();
        Desired {
            rev: world.changed,
            overlay: last.overlay(),
            balance: last.balance(me),
            zone: last.zone(),
            problems,
            next: last.next(),
        }
    }
}

/// Plans one node, as of now. A node that the snapshot does not know gets nothing.
pub fn desired(world: &Snapshot, node: &NodeId, now: Timestamp) -> Desired {
    Planner::default().desired(world, node, &Masks::default(), now)
}

/// A network around the node's own address would cut the node off: it is left out here, and said so. What else
/// overlaps the node's routes is only said; the network works, and taking it away would cut running flows.
fn without_own_underlay<'a>(
    world: &'a Snapshot,
    me: &Node,
    problems: &mut Vec<Problem>,
) -> Cow<'a, Snapshot> {
    let mut world = Cow::Borrowed(world);
    for network in world.clone().networks.values() {
        let about = format!("network {}", network.name);
        if network.subnets().any(|net| net.contains(&me.address)) {
            let message = format!("is left out: the node's own address {} lies in it", me.address);
            problems.push(Problem { about, message });
            world.to_mut().networks.remove(&network.id);
        } else if let Some(route) =
            me.routes.iter().find(|route| network.subnets().any(|net| overlap(**route, net)))
        {
            let message = format!("overlaps the node's route {route}: what is behind that cannot be reached");
            problems.push(Problem { about, message });
        }
    }
    world
}
