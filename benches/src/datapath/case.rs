//! The cases: which packets, and how it is checked that they met what their name says.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Result, bail, ensure};
use aya::programs::SchedClassifier;
use mesh_ebpf::abi::{TCP, UDP};
use mesh_ebpf::flow::{Head, Role};
use mesh_ebpf::packet::Tuple;
use mesh_ebpf::verdict::Event;

use super::frame::{FIRST, Frame, LATER};
use super::node::{self, FIRST_PORT, Node};
use super::report::{Row, quantile};

/// Packets of a row.
const RUNS: u32 = 100_000;
/// Flows that exist in the last case.
const FLOWS: usize = 100_000;
/// More than that begin: some of the first give way where more than four meet in a bucket.
const BEGUN: u32 = 115_000;
/// The program that does nothing has a turn after so many of the other's.
const BETWEEN: u32 = 4;
const PASS: i32 = -1;
const REDIRECT: i32 = 7;
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

/// One node, and what is measured on it.
struct Bench<'a> {
    place: Place,
    node: &'a Node,
    from_net: &'a SchedClassifier,
    nothing: &'a SchedClassifier,
    empty: &'a mut Vec<u32>,
}

/// Measures all cases at one place. Adds the times of the program that does nothing to `empty`.
pub(super) fn measure(place: Place, rows: &mut Vec<Row>, empty: &mut Vec<u32>) -> Result<()> {
    let node = Node::load(place)?;
    let (from_net, nothing) = (node.program("from_net")?, node.program("empty")?);
    let mut bench = Bench { place, node: &node, from_net, nothing, empty };
    for proto in [TCP, UDP] {
        for (case, times) in bench.cases(proto)? {
            rows.push(row(case, place, proto, times));
        }
    }
    Ok(())
}

fn row(case: &'static str, place: Place, proto: u8, mut times: Vec<u32>) -> Row {
    let row = Row {
        case,
        proto: if proto == TCP { "tcp" } else { "udp" },
        family: if place.v6 { 6 } else { 4 },
        path: place.path.name(),
        services: place.services,
        ns_median: quantile(&mut times, 0.5),
        ns_p99: quantile(&mut times, 0.99),
    };
    eprintln!("{place}, {}: {case} {} ns, 99 % within {} ns", row.proto, row.ns_median, row.ns_p99);
    row
}

impl Bench<'_> {
    fn cases(&mut self, proto: u8) -> Result<[(&'static str, Vec<u32>); 4]> {
        let here = node::address(self.place.v6);
        let mut first = Frame::new(proto, here, FIRST);
        let mut later = Frame::new(proto, here, LATER);
        let others = self.times(&mut later, RUNS, PASS, |turn| (turn, NOT_OURS))?;

        let services = self.place.services;
        let port = |client: u32| FIRST_PORT + (random(client.into()) % u64::from(services)) as u16;
        let before = self.begun()?;
        let lost = self.lost()?;
        let new = self.times(&mut first, BEGUN, REDIRECT, |turn| (turn, port(turn)))?;
        let begun = self.begun()? - before;
        ensure!(begun == u64::from(BEGUN), "{begun} of {BEGUN} new flows began");
        let lost = self.lost()? - lost;
        ensure!(lost < u64::from(BEGUN / 10), "{lost} entries took the place of others");

        for client in 0..BEGUN {
            self.send(&mut later, client, port(client), REDIRECT)?;
        }
        let there = self.there(&mut later, port)?;
        let known = self.known("known_flow", |bench| {
            let client = there[0];
            bench.times(&mut later, RUNS, REDIRECT, |_| (client, port(client)))
        })?;
        let any = self.known("flows_100k", |bench| {
            bench.times(&mut later, 2 * RUNS, REDIRECT, |turn| {
                let client = there[(random(u64::from(turn) << 32) % FLOWS as u64) as usize];
                (client, port(client))
            })
        })?;
        Ok([("not_ours", others), ("new_flow", new), ("known_flow", known), ("flows_100k", any)])
    }

    /// Times of so many packets, each of some client to some port.
    fn times(
        &mut self,
        frame: &mut Frame,
        runs: u32,
        want: i32,
        packet: impl Fn(u32) -> (u32, u16),
    ) -> Result<Vec<u32>> {
        let mut times = Vec::with_capacity(runs as usize);
        for turn in 0..runs {
            let (client, port) = packet(turn);
            times.push(self.send(frame, client, port, want)?);
            if turn % BETWEEN == 0 {
                let (_, ns) = node::run(self.nothing, frame.from(client, port))?;
                self.empty.push(ns);
            }
        }
        Ok(times)
    }

    fn send(&self, frame: &mut Frame, client: u32, port: u16, want: i32) -> Result<u32> {
        let (done, ns) = node::run(self.from_net, frame.from(client, port))?;
        ensure!(done == want, "the program returned {done} and not {want} for client {client}, port {port}");
        Ok(ns)
    }

    /// Measures packets of flows that are known, and checks that they were.
    fn known(&mut self, case: &str, measure: impl FnOnce(&mut Self) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
        let before = self.begun()?;
        let times = measure(self)?;
        let begun = self.begun()? - before;
        ensure!(begun == 0, "{case}: {begun} flows were not known");
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

    /// Flows that began, whether or not they were remembered.
    fn begun(&self) -> Result<u64> {
        Ok(self.node.counted(Event::NewFlow)? + self.node.counted(Event::MidFlow)?)
    }

    /// Entries that gave way, or were not made.
    fn lost(&self) -> Result<u64> {
        Ok(self.node.counted(Event::Evicted)? + self.node.counted(Event::TableFull)?)
    }
}

/// The next of a sequence that looks random (SplitMix64).
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
