//! The cases: which packets, and how it is checked that they met what their name says.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{SchedClassifier, Xdp};
use mesh_ebpf::abi::{TCP, UDP};
use mesh_ebpf::flow::{Head, Role};
use mesh_ebpf::packet::Tuple;
use mesh_ebpf::verdict::Event;

use super::frame::{FIRST, Frame, LATER};
use super::katran::{Katran, Other};
use super::node::{self, FIRST_PORT, Node};
use super::report::{Row, quantile};
use super::side::{Fate, Side};

/// Packets of a row.
const RUNS: u32 = 100_000;
/// Flows that exist in the last case.
const FLOWS: usize = 100_000;
/// More than that begin: some of the first give way where more than four meet in a bucket.
const BEGUN: u32 = 115_000;
/// Packets that one balancer gets before the other has its turn.
const TURN: u32 = 1000;
const PASS: i32 = -1;
const REDIRECT: i32 = 7;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
/// A port that no service has.
const NOT_OURS: u16 = 9;

/// Where the backends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// On the node that the packet comes in by.
    Local,
    /// On another.
    Encap,
}

impl Path {
    pub(super) const ALL: [Self; 2] = [Self::Local, Self::Encap];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Encap => "encap",
        }
    }
}

/// What a node is filled with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) services: u32,
    pub(super) v6: bool,
    pub(super) path: Path,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v6 { 6 } else { 4 };
        write!(f, "{} services, IPv{family}, {}", self.services, self.path.name())
    }
}

/// What is measured at all places of one balancer.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) rows: Vec<Row>,
    /// Times of the program that does nothing.
    pub(super) empty: Vec<u32>,
}

/// One node, and what is measured on it.
struct Bench<'a> {
    place: Place,
    node: &'a Node,
    mesh: Side<'a, SchedClassifier>,
    katran: Option<(&'a Katran, Side<'a, Xdp>)>,
}

/// Times of packets of one kind.
#[derive(Default)]
struct Times {
    mesh: Taken,
    /// None where Katran is not measured.
    katran: Taken,
}

/// By one balancer.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) packets: Vec<u32>,
    /// Of the program that does nothing, meanwhile.
    pub(super) empty: Vec<u32>,
}

/// Measures all cases at one place, and Katran beside where it does the same: it only sends to other nodes.
pub(super) fn measure(
    place: Place,
    other: Option<&Other>,
    mesh: &mut Measured,
    katran: &mut Measured,
) -> Result<()> {
    let node = Node::load(place)?;
    let other = other.filter(|_| place.path == Path::Encap);
    let other = other.map(|other| Katran::load(other, place)).transpose()?.flatten();
    let beside = match &other {
        None => None,
        Some(other) => {
            let (program, nothing) = (other.program()?, node.empty_xdp()?);
            Some((other, Side { program, nothing, pass: XDP_PASS, forward: XDP_TX }))
        }
    };
    let (program, nothing) = (node.program("mesh_from_net")?, node.program("empty")?);
    let ours = Side { program, nothing, pass: PASS, forward: REDIRECT };
    let mut bench = Bench { place, node: &node, mesh: ours, katran: beside };
    for proto in [TCP, UDP] {
        for (case, times) in bench.cases(proto)? {
            mesh.add("Mesh", case, place, proto, times.mesh);
            if !times.katran.packets.is_empty() {
                katran.add("Katran", case, place, proto, times.katran);
            }
        }
    }
    Ok(())
}

impl Measured {
    fn add(&mut self, whose: &str, case: &'static str, place: Place, proto: u8, mut taken: Taken) {
        let row = Row {
            case,
            proto: if proto == TCP { "tcp" } else { "udp" },
            family: if place.v6 { 6 } else { 4 },
            path: place.path.name(),
            services: place.services,
            ns_median: quantile(&mut taken.packets, 0.5),
            ns_p99: quantile(&mut taken.packets, 0.99),
            empty_ns: quantile(&mut taken.empty, 0.5),
        };
        let Row { proto, ns_median, ns_p99, empty_ns, .. } = row;
        eprintln!(
            "{whose}, {place}, {proto}: {case} {ns_median} ns, 99 % within {ns_p99} ns; nothing {empty_ns} ns"
        );
        self.empty.append(&mut taken.empty);
        self.rows.push(row);
    }
}

impl Bench<'_> {
    fn cases(&mut self, proto: u8) -> Result<[(&'static str, Times); 4]> {
        let here = node::address(self.place.v6);
        let mut first = Frame::new(proto, here, FIRST);
        let mut later = Frame::new(proto, here, LATER);
        let others = self.times(&mut later, RUNS, Fate::Passed, |turn| (turn, NOT_OURS))?;

        let services = self.place.services;
        let port = |client: u32| FIRST_PORT + (random(client.into()) % u64::from(services)) as u16;
        let before = self.begun()?;
        let lost = self.lost()?;
        let new = self.times(&mut first, BEGUN, Fate::Forwarded, |turn| (turn, port(turn)))?;
        for (begun, before) in self.begun()?.into_iter().zip(before) {
            let begun = begun - before;
            ensure!(begun == u64::from(BEGUN), "{begun} of {BEGUN} new flows began");
        }
        let lost = self.lost()? - lost;
        ensure!(lost < u64::from(BEGUN / 10), "{lost} entries took the place of others");

        // Untimed: they are established from now on.
        self.times(&mut later, BEGUN, Fate::Forwarded, |turn| (turn, port(turn)))?;
        let there = self.there(&mut later, port)?;
        let known = self.known("known_flow", |bench| {
            let client = there[0];
            bench.times(&mut later, RUNS, Fate::Forwarded, |_| (client, port(client)))
        })?;
        let any = self.known("flows_100k", |bench| {
            bench.times(&mut later, 2 * RUNS, Fate::Forwarded, |turn| {
                let client = there[(random(u64::from(turn) << 32) % FLOWS as u64) as usize];
                (client, port(client))
            })
        })?;
        Ok([("not_ours", others), ("new_flow", new), ("known_flow", known), ("flows_100k", any)])
    }

    /// Times of so many packets, each of some client to some port. Balancers take turns, not packet by packet: each
    /// would find what the other left in the caches.
    fn times(
        &mut self,
        frame: &mut Frame,
        runs: u32,
        want: Fate,
        packet: impl Fn(u32) -> (u32, u16),
    ) -> Result<Times> {
        let mut times = Times::default();
        for start in (0..runs).step_by(TURN as usize) {
            let turns = start..runs.min(start + TURN);
            self.mesh.times(frame, turns.clone(), want, &packet, &mut times.mesh)?;
            if let Some((_, side)) = &mut self.katran {
                side.times(frame, turns, want, &packet, &mut times.katran).context("Katran")?;
            }
        }
        Ok(times)
    }

    /// Measures packets of flows that are known, and checks that they were.
    fn known(&mut self, case: &str, measure: impl FnOnce(&mut Self) -> Result<Times>) -> Result<Times> {
        let before = self.begun()?;
        let times = measure(self)?;
        let after = self.begun()?;
        ensure!(
            after == before,
            "{case}: flows were not known: {before:?} had begun before and {after:?} after"
        );
        Ok(times)
    }

    /// The clients whose flows are in the table.
    fn there(&self, frame: &mut Frame, port: impl Fn(u32) -> u16) -> Result<Vec<u32>> {
        let flows = self.node.flows(frame.proto())?;
        // One that is established is never given up for another.
        let stays = |head: Head| head.is(Role::Forward) && head.has(Head::ESTABLISHED);
        let all = flows.iter().flat_map(|bucket| bucket.0);
        let known: HashSet<Tuple> =
            all.filter(|flow| stays(Head(flow.head))).map(|flow| flow.tuple).collect();
        let mut there = Vec::with_capacity(FLOWS);
        for client in 0..BEGUN {
            frame.from(client, port(client));
            if known.contains(&frame.tuple()) {
                there.push(client);
            }
        }
        if there.len() < FLOWS {
            bail!("only {} of {BEGUN} flows are remembered", there.len());
        }
        there.truncate(FLOWS);
        Ok(there)
    }

    /// Flows that began with each balancer, whether or not they were remembered.
    fn begun(&self) -> Result<Vec<u64>> {
        let ours = self.node.counted(Event::NewFlow)? + self.node.counted(Event::MidFlow)?;
        let theirs = self.katran.as_ref().map(|(katran, _)| katran.missed()).transpose()?;
        Ok([ours].into_iter().chain(theirs).collect())
    }

    /// Entries that gave way, or were not made.
    fn lost(&self) -> Result<u64> {
        Ok(self.node.counted(Event::Evicted)? + self.node.counted(Event::TableFull)?)
    }
}

/// The next of a sequence that looks random (SplitMix64).
pub(super) fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
