//! **Decision.** What nodes' kernels say with their answers: which boot it is, and when the agent was last heard of.

use std::collections::BTreeMap;

use super::Millis;
use crate::model::{NodeId, Snapshot, fnv64};

/// An answer so old says nothing of now.
const OLD: Millis = 2000;
/// An agent says so twice in a second; one that has not for so long is dead, or has no time.
pub const AGENT_LATE: Millis = 5000;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Which boot of the machine: [`boot_number`].
    pub boot: u64,
    /// Which start of its agent; 0: it has not joined yet.
    pub epoch: u64,
    /// How long ago the agent said so, ms.
    pub age: Millis,
}

/// A boot's id as a number that is not 0.
pub fn boot_number(boot: &str) -> u64 {
    fnv64(boot.as_bytes()).max(1)
}

/// The last answers of all nodes whose kernels say something.
#[derive(Debug, Default)]
pub struct Echoes {
    last: BTreeMap<NodeId, (Echo, Millis)>,
}

impl Echoes {
    /// A node has answered.
    pub fn told(&mut self, id: &NodeId, echo: Echo, now: Millis) {
        self.last.insert(id.clone(), (echo, now));
    }

    /// Only these nodes are there.
    pub fn keep(&mut self, known: impl Fn(&NodeId) -> bool) {
        self.last.retain(|id, _| known(id));
    }

    /// Whether a node's kernel has ever answered.
    pub fn has(&self, id: &NodeId) -> bool {
        self.last.contains_key(id)
    }

    /// What is known of now.
    pub fn fresh(&self, now: Millis) -> impl Iterator<Item = (&NodeId, &Echo)> {
        let fresh = move |(_, (_, at)): &(&NodeId, &(Echo, Millis))| now <= at + OLD;
        self.last.iter().filter(fresh).map(|(id, (echo, _))| (id, echo))
    }

    /// Who is in another boot than its record says: whatever ran there does not any more.
    pub fn rebooted(&self, world: &Snapshot, now: Millis) -> impl Iterator<Item = &NodeId> {
        let other = |id: &NodeId, echo: &Echo| {
            world.nodes.get(id).is_some_and(|node| boot_number(&node.boot) != echo.boot)
        };
        self.fresh(now).filter(move |(id, echo)| other(id, echo)).map(|(id, _)| id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::model::Node;

    fn world(boot: &str) -> Snapshot {
        let node = serde_json::json!({
            "id": "n1", "name": "n1", "address": IpAddr::from([192, 0, 2, 1]), "vxlan_port": 4789, "epoch": 3,
            "boot": boot, "uplink_mtu": 1500, "listeners": [], "routes": [], "version": "0", "started": 0
        });
        let node: Node = serde_json::from_value(node).unwrap();
        let mut world = Snapshot::default();
        world.nodes.insert(node.id.clone(), Arc::new(node));
        world
    }

    #[test]
    fn another_boot_is_seen_until_the_record_says_so_or_the_answer_is_old() {
        let (mut echoes, id) = (Echoes::default(), NodeId::new("n1"));
        let count = |echoes: &Echoes, boot: &str, now| echoes.rebooted(&world(boot), now).count();
        assert!(!echoes.has(&id));
        echoes.told(&id, Echo { boot: boot_number("a"), epoch: 3, age: 100 }, 1000);
        assert!(echoes.has(&id));
        assert_eq!((count(&echoes, "a", 1000), count(&echoes, "b", 1000)), (0, 1));
        echoes.told(&id, Echo { boot: boot_number("b"), epoch: 0, age: 100 }, 4000);
        assert_eq!((count(&echoes, "a", 4000), count(&echoes, "b", 4000)), (1, 0));
        assert_eq!((count(&echoes, "a", 6000), count(&echoes, "a", 6001)), (1, 0));
        echoes.keep(|_| false);
        assert!(!echoes.has(&id));
    }

    /// An agent that starts again, in the same boot, has left its tasks alone.
    #[test]
    fn another_start_of_the_agent_is_no_reboot() {
        let (mut echoes, id) = (Echoes::default(), NodeId::new("n1"));
        for epoch in [0, 3, 4] {
            echoes.told(&id, Echo { boot: boot_number("a"), epoch, age: AGENT_LATE * 9 }, 0);
            assert_eq!(echoes.rebooted(&world("a"), 0).count(), 0);
        }
    }
}
