//! Frames on their way from node to node, as the programs, the tunnels and the routes between them have them go.

use std::net::IpAddr;

use mesh_ebpf::abi::{Addr16, Mac, TCP, UDP};
use mesh_ebpf::fragment::{FragmentKey, FragmentValue};
use mesh_ebpf::frame::Frame;
use mesh_ebpf::packet::{Packet, Tuple};
use mesh_ebpf::pipeline;
use mesh_ebpf::testing::{checksum, checksum_of};
use mesh_ebpf::tunnel::Tag;
use mesh_ebpf::verdict::{Action, Event, Refusal, To, Verdict};

use crate::read::{ETH, be, ip};
use crate::world::{self, NODES, TASKS, VNI, Who, World};

const LOOPBACK: u32 = 1;
const UPLINK: u32 = 2;
/// Hops after which a frame goes in circles.
const MANY: usize = 5;

/// A frame that is about to come in somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub from: Way,
    pub frame: Vec<u8>,
}

/// Where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Sender(Who),
    /// Another node, to a node, with this key, destination and source.
    Tunnel {
        from: usize,
        to: usize,
        vni: u32,
        macs: [Mac; 2],
    },
}

/// What becomes of it next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    On(Hop),
    /// A fragment, until the first one was there.
    Waits(Hop),
    Ends(End),
}

/// Where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    At(Who, Vec<u8>),
    Refused(Refusal),
    Dropped(Event),
    /// With its first fragment.
    Lost,
    Echoed,
    /// Left to a node's kernel, which knows no such address or port.
    Passed,
    /// Routed to a task that has gone.
    Late,
}

impl World {
    /// Sends a frame to its end; one that waits is `None`.
    pub fn carry(&self, who: Who, frame: &[u8]) -> Option<End> {
        self.deliver(Hop { from: Way::Sender(who), frame: frame.to_vec() })
    }

    /// The same of one that is under way.
    pub fn deliver(&self, mut hop: Hop) -> Option<End> {
        for _ in 0..MANY {
            match self.step(&hop) {
                Step::On(next) => hop = next,
                Step::Waits(_) => return None,
                Step::Ends(end) => return Some(end),
            }
        }
        panic!("it goes in circles: {hop:?}");
    }

    /// Has a frame come in at its next node.
    pub fn step(&self, hop: &Hop) -> Step {
        let (at, device) = match hop.from {
            Way::Sender(Who::Net(node)) => (node, UPLINK),
            Way::Sender(Who::Task(task)) => (world::home(task), world::device(task)),
            Way::Sender(Who::Stack(node)) => (node, LOOPBACK),
            Way::Tunnel { to, .. } => (to, self.nodes[to].config.tunnel),
        };
        let frame = Frame::new(&hop.frame);
        let mut packet = Packet::EMPTY;
        if packet.read(&frame).is_err() {
            return Step::Ends(End::Passed);
        }
        packet.device = device;
        if packet.is_error() && packet.part == Packet::WHOLE {
            packet.quote(&frame);
        }
        let before = self.counted();
        let Some(verdict) = self.judge(at, hop.from, &mut packet) else { return Step::Waits(hop.clone()) };
        assert!(verdict.refused().is_none() || self.counted() > before, "refused, and nobody knows why");
        if verdict == Verdict::LOSE {
            return Step::Ends(End::Lost);
        }
        let to = match verdict.action(&packet.hop) {
            Action::Pass => return self.route(at, hop),
            Action::Drop(event) => return Step::Ends(End::Dropped(event)),
            Action::Refuse(how) => return Step::Ends(End::Refused(how)),
            Action::Echo => return Step::Ends(End::Echoed),
            Action::Send(to) => to,
        };
        let frame = rewritten(&hop.frame, &packet);
        match to {
            To::Task { device, mac } => {
                let task = (device - world::device(0)) as usize;
                assert_eq!((world::home(task), world::mac(task)), (at, mac), "a task of this node");
                Step::Ends(End::At(Who::Task(task), frame))
            }
            To::Uplink { .. } => Step::Ends(End::At(Who::Net(at), frame)),
            To::Stack => Step::Ends(End::At(Who::Stack(at), frame)),
            To::Peer { peer, tag, mac } => {
                let to = peer as usize - 1;
                assert_ne!(to, at, "a packet to itself");
                let macs = [mac, packet.hop.source(self.nodes[at].config.mac)];
                Step::On(Hop { from: Way::Tunnel { from: at, to, vni: tag.vni(), macs }, frame })
            }
        }
    }

    /// What the programs do: of a packet in parts only the first is judged. None: it waits for that.
    fn judge(&self, at: usize, from: Way, packet: &mut Packet) -> Option<Verdict> {
        let (node, key) = (&self.nodes[at], FragmentKey::of(packet, packet.device));
        if packet.part == Packet::LATER {
            return Some(self.fragments[at].borrow().get(&key)?.apply(packet));
        }
        let device = packet.device;
        let verdict = match from {
            Way::Sender(Who::Net(_)) => pipeline::from_net(node, packet, device),
            Way::Sender(Who::Task(_)) => pipeline::from_task(node, packet, device),
            Way::Sender(Who::Stack(_)) => pipeline::from_host(node, packet),
            Way::Tunnel { from, vni, macs, .. } => {
                pipeline::from_mesh(node, packet, 1 + from as u32, vni, macs)
            }
        };
        if packet.part == Packet::FIRST {
            self.fragments[at].borrow_mut().insert(key, FragmentValue::of(packet, verdict));
        }
        Some(verdict)
    }

    /// What the node's own stack and the overlay do with what is left to them.
    fn route(&self, at: usize, hop: &Hop) -> Step {
        let Some(read) = ip(&hop.frame[ETH..]) else { return Step::Ends(End::Passed) };
        let from_outside = matches!(hop.from, Way::Sender(Who::Net(_)));
        let to = |node: usize, mac: Mac| {
            let (vni, macs) = (Tag::Network(VNI).vni(), [mac, self.nodes[at].config.mac]);
            Step::On(Hop { from: Way::Tunnel { from: at, to: node, vni, macs }, frame: hop.frame.clone() })
        };
        for v6 in [false, true] {
            if let Some(task) = (0..TASKS).find(|task| world::address(*task, v6) == read.dst)
                && !from_outside
            {
                let node = world::home(task);
                return match self.nodes[node].endpoints.get(&world::device(task)) {
                    _ if node != at => to(node, world::tunnel_mac(node)),
                    None => Step::Ends(End::Late),
                    Some(_) => Step::Ends(End::At(Who::Task(task), hop.frame.clone())),
                };
            }
            if let Some(node) = (0..NODES).find(|node| world::inside(*node, v6) == read.dst)
                && matches!(hop.from, Way::Sender(Who::Task(_)))
                && node != at
            {
                return to(node, world::tunnel_mac(node));
            }
        }
        Step::Ends(End::Passed)
    }
}

/// A frame with the addresses and ports that a verdict gives it, and checksums that are as right as they were.
fn rewritten(frame: &[u8], packet: &Packet) -> Vec<u8> {
    let (ethernet, rest) = frame.split_at(ETH);
    let read = ip(rest).expect("the same packet");
    let mut rest = rest.to_vec();
    let was = checksum_of(&read.src, &read.dst, read.proto, &rest[read.l4..]);
    if packet.quoted_proto != 0 {
        put(&mut rest, read.l4 + 8, &packet.quoted_sent, true);
    }
    put(&mut rest, 0, &packet.sent, !read.is_later() && matches!(read.proto, TCP | UDP));
    let field = match read.proto {
        _ if read.is_later() => return [ethernet, &rest].concat(),
        TCP => read.l4 + 16,
        UDP => read.l4 + 6,
        _ => read.l4 + 2,
    };
    // In ones' complement: the field makes up for what the sum of all has changed by.
    let (src, dst): (IpAddr, IpAddr) = (packet.sent.src.into(), packet.sent.dst.into());
    let now = checksum_of(&src, &dst, read.proto, &rest[read.l4..]);
    let sum = (u32::from(be(&rest[field..])) + u32::from(now) + u32::from(!was)) % 0xffff;
    rest[field..field + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    [ethernet, &rest].concat()
}

/// Writes addresses and ports at an IP header.
fn put(bytes: &mut [u8], at: usize, tuple: &Tuple, ports: bool) {
    let v4 = bytes[at] >> 4 == 4;
    let octets = |addr: &Addr16| {
        assert_eq!(addr.is_v4(), v4, "one family");
        if v4 { addr.octets()[12..].to_vec() } else { addr.octets().to_vec() }
    };
    let addresses = [octets(&tuple.src), octets(&tuple.dst)].concat();
    let from = at + if v4 { 12 } else { 8 };
    bytes[from..from + addresses.len()].copy_from_slice(&addresses);
    if v4 {
        bytes[at + 10..at + 12].fill(0);
        let sum = checksum(&bytes[at..at + 20]);
        bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    if ports {
        let header = if v4 { 20 } else { 40 + if bytes[at + 6] == 44 { 8 } else { 0 } };
        bytes[at + header..at + header + 4].copy_from_slice(&tuple.ports.to_ne_bytes());
    }
}
