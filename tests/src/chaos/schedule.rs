//! **Decision.** What is done to a mesh, and when: by the seed alone.

use std::collections::BTreeSet;

use super::{Millis, Place, Random};

/// How many faults of the store's members, and of nodes, and changes happen in one go; then there is calm, in which
/// everything has to become as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// What is asked for while all is well.
    pub before: Vec<Change>,
    /// What happens to a node or between nodes.
    pub node: Option<NodeFault>,
    /// What happens to the store, and how long after the beginning.
    pub store: Option<(Millis, StoreFault)>,
    /// What is asked for meanwhile, and when from the beginning. Nothing here ends a task that serves.
    pub meanwhile: Vec<(Millis, Change)>,
}

/// What happens to a node, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFault {
    /// Its agent is killed with -9, and started later.
    Kill(Place, Millis),
    /// The same, and its copy of the store is cut in half meanwhile.
    Truncate(Place, Millis),
    /// Its agent is frozen.
    Freeze(Place, Millis),
    /// It is unplugged. Kernel, agent and tasks stay.
    Unplug(Place, Millis),
    /// Nothing passes between these nodes and the others.
    Split(BTreeSet<Place>, Millis),
    /// Nothing passes from the one to the other.
    OneWay(Place, Place, Millis),
    /// So many of a hundred packets are lost.
    Loss(u32, Millis),
    /// All that is Mesh's is killed with -9 on the manager whose member leads, and its agent is started later. Kernel and
    /// tasks stay.
    KillLeader(Millis),
    /// The manager whose member leads is unplugged.
    UnplugLeader(Millis),
}

/// What happens to the store, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The leader is killed with -9.
    KillLeader(Millis),
    /// A member is killed with -9.
    Kill(usize, Millis),
    /// A member is frozen.
    Freeze(usize, Millis),
    /// All are killed with -9.
    KillAll(Millis),
    /// What watches over a manager's member is killed with -9.
    KillSupervisor(usize),
}

/// What is asked of a mesh. Numbers are never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One more task for a service.
    AddTask {
        /// Its number.
        number: u32,
        /// Whose.
        service: usize,
        /// Where.
        node: Place,
    },
    /// Takes such a task away.
    RemoveTask {
        /// Its number.
        number: u32,
        /// Who is asked.
        via: Place,
    },
    /// One more published port for a service.
    Publish {
        /// The port.
        port: u16,
        /// Whose.
        service: usize,
        /// Who is asked.
        via: Place,
    },
    /// Takes such a port away.
    Unpublish {
        /// The port.
        port: u16,
        /// Whose.
        service: usize,
        /// Who is asked.
        via: Place,
    },
    /// One more service.
    Create {
        /// Its number.
        number: u32,
        /// Who is asked.
        via: Place,
    },
    /// Takes such a service away.
    Remove {
        /// Its number.
        number: u32,
        /// Who is asked.
        via: Place,
    },
}

/// How long it is calm after each round, at least.
pub(super) const CALM: Millis = 5_000;

/// The first of the ports that are published on the way.
const FIRST_PORT: u16 = 9_000;

/// Of what a mesh consists.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Members of the store.
    pub members: usize,
    /// Services.
    pub services: usize,
    /// Whether the members are on the first nodes, which are managers. What is killed there is started again by itself.
    pub managed: bool,
}

/// What happens in such a mesh, for about that long.
pub fn schedule(seed: u64, length: Millis, size: Size) -> Vec<Round> {
    let mut plan = Plan { random: Random::new(seed), size, next: 0, extra: Vec::new() };
    let (mut rounds, mut planned) = (Vec::new(), 0);
    while planned < length {
        let round = plan.round();
        planned += round.length() + CALM;
        rounds.push(round);
    }
    rounds
}

impl Round {
    /// How long it lasts, without the calm.
    pub fn length(&self) -> Millis {
        let store = self.store.as_ref().map(|(after, fault)| after + fault.lasts());
        self.node.as_ref().map_or(0, NodeFault::lasts).max(store.unwrap_or(0))
    }

    /// How many faults are in it.
    pub fn faults(&self) -> usize {
        usize::from(self.node.is_some()) + usize::from(self.store.is_some())
    }
}

impl NodeFault {
    fn lasts(&self) -> Millis {
        match self {
            Self::Kill(_, lasts)
            | Self::Truncate(_, lasts)
            | Self::Freeze(_, lasts)
            | Self::Unplug(_, lasts)
            | Self::Split(_, lasts)
            | Self::OneWay(_, _, lasts)
            | Self::Loss(_, lasts)
            | Self::KillLeader(lasts)
            | Self::UnplugLeader(lasts) => *lasts,
        }
    }
}

impl StoreFault {
    fn lasts(&self) -> Millis {
        match self {
            Self::KillLeader(lasts)
            | Self::Kill(_, lasts)
            | Self::Freeze(_, lasts)
            | Self::KillAll(lasts) => *lasts,
            Self::KillSupervisor(_) => 0,
        }
    }
}

struct Plan {
    random: Random,
    size: Size,
    next: u32,
    /// What was added and can be taken away.
    extra: Vec<Change>,
}

impl Plan {
    fn round(&mut self) -> Round {
        let before = (0..self.random.below(3)).map(|_| self.change(true)).collect();
        // Seldom nothing but the store, often nothing but a node.
        let store = self.random.one_in(3).then(|| (self.random.below(2_000), self.store_fault()));
        let node = (store.is_none() || !self.random.one_in(3)).then(|| self.node_fault());
        let mut round = Round { before, node, store, meanwhile: Vec::new() };
        let length = round.length();
        let mut moments: Vec<_> = (0..self.random.below(3)).map(|_| self.random.below(length)).collect();
        // What is taken away was added before.
        moments.sort_unstable();
        round.meanwhile = moments.into_iter().map(|at| (at, self.change(false))).collect();
        round
    }

    fn node_fault(&mut self) -> NodeFault {
        let node = self.node();
        let lasts = self.random.between(4_000, 10_000);
        match self.random.below(if self.size.managed { 13 } else { 9 }) {
            9 | 10 => NodeFault::KillLeader(self.random.between(200, 6_000)),
            11 | 12 => NodeFault::UnplugLeader(lasts),
            0 => NodeFault::Kill(node, self.random.between(200, 6_000)),
            1 => NodeFault::Truncate(node, self.random.between(200, 3_000)),
            2 => NodeFault::Freeze(node, [500, 2_000, 10_000][self.random.index(3)]),
            3 | 4 => NodeFault::Unplug(node, lasts),
            5 => NodeFault::Split(BTreeSet::from([node]), lasts),
            6 => NodeFault::Split(BTreeSet::from([node, self.other(node)]), lasts),
            7 => NodeFault::OneWay(node, self.other(node), lasts),
            _ => NodeFault::Loss(5, lasts),
        }
    }

    fn store_fault(&mut self) -> StoreFault {
        let member = self.random.index(self.size.members);
        if self.size.managed {
            return match self.random.below(6) {
                0 | 1 => StoreFault::KillLeader(0),
                2 => StoreFault::Kill(member, 0),
                3 => StoreFault::KillSupervisor(member),
                4 => StoreFault::Freeze(member, 8_000),
                _ => StoreFault::KillAll(0),
            };
        }
        match self.random.below(5) {
            0 | 1 => StoreFault::KillLeader(self.random.between(2_000, 8_000)),
            2 => StoreFault::Kill(member, self.random.between(2_000, 8_000)),
            3 => StoreFault::Freeze(member, 8_000),
            _ => StoreFault::KillAll(self.random.between(10_000, 30_000)),
        }
    }

    /// `ends`: whether it may end a task.
    fn change(&mut self, ends: bool) -> Change {
        let node = self.node();
        // Workers take changes of their own tasks only.
        let via = if self.size.managed { node % self.size.members } else { node };
        if self.random.one_in(2)
            && let Some(change) = self.take_away(via, ends)
        {
            return change;
        }
        self.next += 1;
        let (number, service) = (self.next, self.random.index(self.size.services));
        let change = match self.random.below(3) {
            0 => Change::AddTask { number, service, node },
            1 => {
                // There are not so many rounds that ports could run out.
                let port = FIRST_PORT + u16::try_from(number % 20_000).unwrap_or_default();
                Change::Publish { port, service, via }
            }
            _ => Change::Create { number, via },
        };
        self.extra.push(change.clone());
        change
    }

    fn take_away(&mut self, via: Place, ends: bool) -> Option<Change> {
        let is_task = |change: &Change| matches!(change, Change::AddTask { .. });
        let fit: Vec<_> = (0..self.extra.len()).filter(|at| ends || !is_task(&self.extra[*at])).collect();
        let at = *fit.get(self.random.index(fit.len()))?;
        match self.extra.remove(at) {
            Change::AddTask { number, .. } => Some(Change::RemoveTask { number, via }),
            Change::Publish { port, service, .. } => Some(Change::Unpublish { port, service, via }),
            Change::Create { number, .. } => Some(Change::Remove { number, via }),
            Change::RemoveTask { .. } | Change::Unpublish { .. } | Change::Remove { .. } => None,
        }
    }

    fn node(&mut self) -> Place {
        self.random.index(self.size.nodes)
    }

    fn other(&mut self, than: Place) -> Place {
        let step = 1 + self.random.index(self.size.nodes.saturating_sub(1));
        (than + step) % self.size.nodes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH: Millis = 300_000;
    const SIZE: Size = Size { nodes: 5, members: 3, services: 3, managed: false };
    const MANAGED: Size = Size { managed: true, ..SIZE };

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_schedule(seed: u64) {
            prop_assert_eq!(schedule(seed, LENGTH, SIZE), schedule(seed, LENGTH, SIZE));
        }

        #[test]
        fn a_shorter_run_is_the_beginning_of_a_longer_one(seed: u64, length in 0..LENGTH) {
            let (short, long) = (schedule(seed, length, SIZE), schedule(seed, LENGTH, SIZE));
            prop_assert!(long.starts_with(&short));
        }

        /// What ends a task does so while all is well, and only what was added is taken away, once.
        #[test]
        fn changes_are_possible(seed: u64) {
            let mut added = BTreeSet::new();
            for round in schedule(seed, LENGTH, SIZE) {
                prop_assert!(round.faults() > 0);
                let ends = |change: &Change| matches!(change, Change::RemoveTask { .. });
                prop_assert!(!round.meanwhile.iter().any(|(_, change)| ends(change)));
                for change in round.before.iter().chain(round.meanwhile.iter().map(|(_, change)| change)) {
                    match change {
                        Change::AddTask { number, .. } | Change::Create { number, .. } =>
                            prop_assert!(added.insert(*number)),
                        Change::Publish { port, .. } => prop_assert!(added.insert(u32::from(*port) << 16)),
                        Change::RemoveTask { number, .. } | Change::Remove { number, .. } =>
                            prop_assert!(added.remove(number)),
                        Change::Unpublish { port, .. } => prop_assert!(added.remove(&(u32::from(*port) << 16))),
                    }
                }
            }
        }

        #[test]
        fn two_different_nodes_are_meant(seed: u64) {
            for round in schedule(seed, LENGTH, SIZE) {
                match round.node {
                    Some(NodeFault::OneWay(from, to, _)) => prop_assert!(from != to && from < 5 && to < 5),
                    Some(NodeFault::Split(left, _)) => prop_assert!(left.len() < 3 && left.iter().all(|n| *n < 5)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn managers_have_faults_of_their_own_and_are_who_is_asked() {
        let rounds: Vec<_> = (0..20).flat_map(|seed| schedule(seed, LENGTH, MANAGED)).collect();
        let shown = format!("{rounds:?}");
        for fault in ["UnplugLeader(", "KillLeader(0", "Kill(2, 0)", "KillSupervisor(1)", "KillAll(0)"] {
            assert!(shown.contains(fault), "{fault}");
        }
        assert!(rounds.iter().any(|round| matches!(round.node, Some(NodeFault::KillLeader(200..)))));
        assert!(shown.contains("via: 2") && !shown.contains("via: 3") && shown.contains("node: 4"));
    }

    #[test]
    fn seeds_differ_and_every_fault_comes() {
        assert_ne!(schedule(1, LENGTH, SIZE), schedule(2, LENGTH, SIZE));
        let rounds: Vec<_> = (0..20).flat_map(|seed| schedule(seed, LENGTH, SIZE)).collect();
        let shown = format!("{rounds:?}");
        for fault in [
            "Kill(",
            "Truncate(",
            "Freeze(",
            "Unplug(",
            "Split(",
            "OneWay(",
            "Loss(",
            "KillLeader(",
            "KillAll(",
            "AddTask",
            "RemoveTask",
            "Publish",
            "Unpublish",
            "Create",
            "Remove ",
        ] {
            assert!(shown.contains(fault), "{fault}");
        }
    }
}
