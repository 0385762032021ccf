//! **Effect.** One way to other nodes: probes out, answers in, and what the detector makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use mesh_core::liveness::{Action, Detector, Echoes, Expected, Millis, Timing, Verdict};
use mesh_core::model::{NodeId, Snapshot};

use super::echo::Echo;
use super::probe::Probe;

/// Answers to older rounds say nothing of now.
const ROUNDS: u64 = 8;

/// From whichever address routes say.
pub(super) const ROUTED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What came of a tick.
#[derive(Debug, Default)]
pub(super) struct Ticked {
    /// Whose verdict is another one now.
    pub(super) changed: BTreeMap<NodeId, Verdict>,
    /// Who is to be asked about whom.
    pub(super) asks: Vec<(IpAddr, IpAddr)>,
}

/// A way to all other nodes.
#[derive(Debug)]
pub(super) struct Way {
    sockets: [Option<Echo>; 2],
    /// None where only ICMP is to be used.
    probes: [Option<Probe>; 2],
    /// Whose kernels answer more than ICMP.
    reflect: BTreeSet<NodeId>,
    echoes: Echoes,
    detector: Detector,
    peers: BTreeMap<NodeId, IpAddr>,
    by_address: BTreeMap<IpAddr, NodeId>,
    round: u64,
}

impl Way {
    /// From a node's own address, or [`ROUTED`].
    pub(super) fn open(own: IpAddr, timing: Timing) -> io::Result<Self> {
        let secret = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
        // The other family may be switched off; the own one may not.
        let open = |v6| match Echo::open(own, v6, secret) {
            Err(error) if own.is_ipv6() == v6 => Err(error),
            other => Ok(other.ok()),
        };
        let probe = |v6| if own == ROUTED { None } else { Probe::open(own, v6, secret).ok() };
        Ok(Self {
            sockets: [open(false)?, open(true)?],
            probes: [probe(false), probe(true)],
            reflect: BTreeSet::new(),
            echoes: Echoes::default(),
            detector: Detector::new(timing),
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            round: 0,
        })
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let probes = self.probes.iter().flatten().map(Probe::fd);
        self.sockets.iter().flatten().map(Echo::fd).chain(probes)
    }

    /// Who is there, and where.
    pub(super) fn set_peers(&mut self, peers: BTreeMap<NodeId, IpAddr>) {
        if peers != self.peers {
            self.detector.set_peers(&peers.keys().cloned().collect());
            self.by_address = peers.iter().map(|(id, address)| (*address, id.clone())).collect();
            self.peers = peers;
        }
    }

    /// These say more with their answers.
    pub(super) fn set_reflecting(&mut self, reflect: BTreeSet<NodeId>) {
        self.echoes.keep(|id| reflect.contains(id));
        self.reflect = reflect;
    }

    /// What they say.
    pub(super) fn echoes(&self) -> &Echoes {
        &self.echoes
    }

    /// These the agent before did not hear.
    pub(super) fn remember(&mut self, silent: BTreeSet<NodeId>) {
        self.detector.remember(silent);
    }

    /// Whoever was there before this agent has to answer.
    pub(super) fn expect_those(&mut self, expected: &mut Expected, world: &Snapshot, now: Millis) {
        expected.tick(world, &mut self.detector, now);
    }

    /// Whoever answers on another way has to answer on this one, too.
    pub(super) fn expect(&mut self, other: &Self) {
        for id in self.peers.keys().filter(|id| other.detector.verdict(id) == Some(Verdict::Up)) {
            self.detector.expect(id);
        }
    }

    /// A node that was dead on another way has to answer on this one anew, unless its programs say that they are there:
    /// what is gone with them does not come back before them.
    pub(super) fn doubt(&mut self, id: &NodeId, other: &Self, now: Millis) {
        if !other.echoes.has(id) {
            self.detector.doubt(id, now);
        }
    }

    /// Takes all answers that came in.
    pub(super) fn listen(&mut self, now: Millis) {
        for probe in self.probes.iter().flatten() {
            while let Some((from, round, echo)) = probe.receive(self.round) {
                let id = self.by_address.get(&from).filter(|id| self.reflect.contains(*id));
                if let Some(id) = id.filter(|_| round + ROUNDS > self.round) {
                    self.detector.heard(id);
                    self.echoes.told(id, echo, now);
                }
            }
        }
        for socket in self.sockets.iter().flatten() {
            while let Some((from, round)) = socket.receive() {
                let id = self.by_address.get(&from).filter(|id| !self.echoes.has(id));
                if let Some(id) = id.filter(|_| round + ROUNDS > self.round) {
                    self.detector.heard(id);
                }
            }
        }
    }

    /// A window ends; the next probes leave.
    pub(super) fn tick(&mut self, now: Millis) -> Ticked {
        self.round += 1;
        let before = self.verdicts();
        let mut asks = Vec::new();
        for action in self.detector.tick(now) {
            match action {
                Action::Probe(id) => self.probe(&id),
                Action::Ask { via, about } => {
                    asks.extend(self.peers.get(&via).copied().zip(self.peers.get(&about).copied()));
                }
            }
        }
        let mut changed = self.verdicts();
        changed.retain(|id, verdict| before.get(id) != Some(verdict));
        Ticked { changed, asks }
    }

    fn probe(&self, id: &NodeId) {
        let Some(address) = self.peers.get(id) else { return };
        let family = usize::from(address.is_ipv6());
        if self.reflect.contains(id)
            && let Some(probe) = &self.probes[family]
        {
            probe.send(*address, self.round);
        }
        // Something between may let ICMP through only. Once the node's programs have answered, it is they that have to:
        // a kernel without them forwards nothing.
        if !self.echoes.has(id)
            && let Some(socket) = &self.sockets[family]
        {
            socket.send(*address, self.round);
        }
    }

    /// Whether the node at an address has just answered.
    pub(super) fn hears(&self, address: IpAddr) -> bool {
        self.by_address.get(&address).is_some_and(|id| self.detector.hears(id))
    }

    /// Another hears the node at an address.
    pub(super) fn vouched(&mut self, address: IpAddr, now: Millis) {
        if let Some(id) = self.by_address.get(&address) {
            self.detector.vouched(id, now);
        }
    }

    /// What is thought of whom.
    pub(super) fn detector(&self) -> &Detector {
        &self.detector
    }

    fn verdicts(&self) -> BTreeMap<NodeId, Verdict> {
        self.peers.keys().filter_map(|id| Some((id.clone(), self.detector.verdict(id)?))).collect()
    }
}
