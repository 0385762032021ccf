//! Carries out a verdict.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use mesh_ebpf::abi::Mac;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::{Packet, Skip};
use mesh_ebpf::verdict::{Event, Hop, Verdict};

use super::maps::PACKET;
use super::node::Node;
use super::skb::Skb;

/// The MAC of the host's end of every veth.
const HOST_END: Mac = [0x02, 0x4d, 0, 0, 0, 1];

/// The MAC of the loopback device.
pub(crate) const NOBODY: Mac = [0; 6];

/// What the kernel does next: as if we were not there.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;

/// The node and the packet's headers; otherwise what the kernel does next.
#[inline(always)]
pub(crate) fn read(skb: Skb) -> Result<(Node, &'static mut Packet), i32> {
    let node = Node::get().ok_or(PASS)?;
    if skb.vlan() != 0 {
        return Err(PASS);
    }
    // Not on the stack, which has 512 bytes.
    let place = PACKET.get_ptr_mut(0).ok_or(PASS)?;
    skb.pull();
    // SAFETY: this CPU's own value; programs of this hook do not interrupt each other.
    let packet = unsafe { &mut *place };
    match packet.read(&skb.frame()) {
        Ok(()) => {
            packet.quoted_proto = 0;
            packet.device = skb.device();
            if packet.is_error() && packet.part == Packet::WHOLE {
                packet.quote(&skb.frame());
            }
            Ok((node, packet))
        }
        Err(Skip::Other) => Err(PASS),
        Err(Skip::Malformed) => {
            // The kernel is better at saying so.
            node.count(Event::Malformed);
            Err(PASS)
        }
    }
}

/// Whether a packet goes where it is to go in one piece, or may be cut into several.
#[inline(always)]
pub(crate) fn fits(skb: Skb, node: &Node, packet: &Packet) -> bool {
    packet.hop.kind != Hop::PEER
        || packet.whole == 0
        || packet.segment(skb.gso_size()) <= node.config().tunnel_mtu
}

/// Does what the verdict says.
#[inline(never)]
pub(crate) fn act(skb: Skb, node: &Node, packet: &Packet, verdict: Verdict) -> i32 {
    if verdict == Verdict::SEND {
        let rewritten = if packet.part == Packet::LATER {
            skb.readdress(packet)
        } else if packet.quoted_proto != 0 {
            skb.requote(packet)
        } else {
            skb.rewrite(packet, node.config().csum_v6)
        };
        if !rewritten {
            return drop_it(node, Event::Malformed);
        }
        return match send(skb, node, packet) {
            Some(action) => action as i32,
            None => drop_it(node, Event::NoRoute),
        };
    }
    if let Some(event) = verdict.dropped() {
        node.count_number(event);
    }
    TC_ACT_SHOT
}

/// Loses it, and counts why.
#[inline(always)]
pub(crate) fn drop_it(node: &Node, event: Event) -> i32 {
    node.count(event);
    TC_ACT_SHOT
}

#[inline(always)]
fn send(skb: Skb, node: &Node, packet: &Packet) -> Option<i64> {
    let (config, hop) = (node.config(), &packet.hop);
    match hop.kind {
        Hop::TASK => {
            skb.for_us();
            skb.address(hop.mac, HOST_END).then(|| skb.into_task(hop.via))
        }
        Hop::PEER => {
            let peer = node.peer(hop.via)?;
            if config.tunnel == 0 || !skb.address(hop.mac, hop.source(config.mac)) {
                return None;
            }
            if packet.announces() {
                skb.clamp(packet, config.tunnel_mtu);
            }
            skb.tunnel(peer, hop.vni, config.tunnel)
        }
        Hop::UPLINK if hop.via == 0 => Some(skb.by_route(packet)),
        Hop::UPLINK => Some(skb.to_neighbour(hop.via)),
        _ => {
            // By the loopback device, the only one by which all of the node's own addresses may come.
            skb.mark();
            skb.address(NOBODY, NOBODY).then(|| skb.into_loopback())
        }
    }
}
