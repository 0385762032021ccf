//! **Effect.** One way to other nodes: probes out, answers in, and what the detector makes of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;

use mesh_core::liveness::{Action, Detector, Millis, Timing, Verdict};
use mesh_core::model::NodeId;

use super::echo::Echo;

/// Answers to older rounds say nothing of now.
const ROUNDS: u64 = 8;

/// From whichever address routes say.
pub(super) const ROUTED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A way to all other nodes.
#[derive(Debug)]
pub(super) struct Way {
    sockets: [Option<Echo>; 2],
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
        Ok(Self {
            sockets: [open(false)?, open(true)?],
            detector: Detector::new(timing),
            peers: BTreeMap::new(),
            by_address: BTreeMap::new(),
            round: 0,
        })
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().flatten().map(Echo::fd)
    }

    /// Who is there, and where.
    pub(super) fn set_peers(&mut self, peers: BTreeMap<NodeId, IpAddr>) {
        if peers != self.peers {
            self.detector.set_peers(&peers.keys().cloned().collect());
            self.by_address = peers.iter().map(|(id, address)| (*address, id.clone())).collect();
            self.peers = peers;
        }
    }

    /// Whoever answers on another way has to answer on this one, too.
    pub(super) fn expect(&mut self, other: &Self) {
        for id in self.peers.keys().filter(|id| other.detector.verdict(id) == Some(Verdict::Up)) {
            self.detector.expect(id);
        }
    }

    /// Takes all answers that came in.
    pub(super) fn listen(&mut self) {
        for socket in self.sockets.iter().flatten() {
            while let Some((from, round)) = socket.receive() {
                if let Some(id) = self.by_address.get(&from).filter(|_| round + ROUNDS > self.round) {
                    self.detector.heard(id);
                }
            }
        }
    }

    /// A window ends; the next probes leave. Whose verdict is another one now.
    pub(super) fn tick(&mut self, now: Millis) -> BTreeMap<NodeId, Verdict> {
        self.round += 1;
        let before = self.verdicts();
        for action in self.detector.tick(now) {
            // Nobody can be asked yet.
            let Action::Probe(id) = action else { continue };
            let Some(address) = self.peers.get(&id) else { continue };
            if let Some(socket) = &self.sockets[usize::from(address.is_ipv6())] {
                socket.send(*address, self.round);
            }
        }
        let mut changed = self.verdicts();
        changed.retain(|id, verdict| before.get(id) != Some(verdict));
        changed
    }

    /// Who does not answer on it.
    pub(super) fn masks(&self) -> &BTreeMap<NodeId, Verdict> {
        self.detector.masks()
    }

    fn verdicts(&self) -> BTreeMap<NodeId, Verdict> {
        self.peers.keys().filter_map(|id| Some((id.clone(), self.detector.verdict(id)?))).collect()
    }
}
