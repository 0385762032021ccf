//! Carries out a verdict.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use mesh_ebpf::abi::Mac;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::{Packet, Skip, Tuple};
use mesh_ebpf::verdict::{Event, To, Verdict};

use super::maps::PACKET;
use super::node::Node;
use super::skb::Skb;

/// The MAC of the host's end of every veth.
const HOST_END: Mac = [0x02, 0x4d, 0, 0, 0, 1];

/// What the kernel does next: as if we were not there.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;

/// The node and the packet's headers; otherwise what the kernel does next.
#[inline(always)]
pub(crate) fn read(skb: Skb) -> Result<(Node, &'static mut Packet), i32> {
    let node = Node::get().ok_or(PASS)?;
    // Not on the stack, which has 512 bytes.
    let place = PACKET.get_ptr_mut(0).ok_or(PASS)?;
    skb.pull();
    match Packet::parse(&skb.frame()) {
        Ok(packet) => {
            // SAFETY: this CPU's own value; programs of this hook do not interrupt each other.
            let place = unsafe { &mut *place };
            *place = packet;
            Ok((node, place))
        }
        Err(Skip::Other) => Err(PASS),
        Err(Skip::Fragment) => {
            node.count(Event::Fragment);
            Err(PASS)
        }
        Err(Skip::Malformed) => {
            // The kernel is better at saying so.
            node.count(Event::Malformed);
            Err(PASS)
        }
    }
}

/// Does what the verdict says.
#[inline(never)]
pub(crate) fn act(skb: Skb, node: &Node, packet: &Packet, verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Pass => PASS,
        Verdict::Drop(event) => drop_it(node, *event),
        Verdict::Refuse(_) | Verdict::Echo => TC_ACT_SHOT,
        Verdict::Send(to) => {
            if !skb.rewrite(packet, node.config().csum_v6) {
                return drop_it(node, Event::Malformed);
            }
            match send(skb, node, &packet.sent, to) {
                Some(action) => action as i32,
                None => drop_it(node, Event::NoRoute),
            }
        }
    }
}

#[inline(always)]
fn drop_it(node: &Node, event: Event) -> i32 {
    node.count(event);
    TC_ACT_SHOT
}

#[inline(always)]
fn send(skb: Skb, node: &Node, tuple: &Tuple, to: &To) -> Option<i64> {
    let config = node.config();
    match *to {
        To::Task { device, mac } => {
            skb.for_us();
            skb.address(mac, HOST_END).then(|| skb.into_task(device))
        }
        To::Peer { peer, tag, mac } => {
            let peer = node.peer(peer)?;
            if config.tunnel == 0 || !skb.address(mac, config.mac) {
                return None;
            }
            skb.tunnel(peer, tag.vni(), config.tunnel)
        }
        To::Uplink { device } => Some(skb.to_neighbour(device)),
        To::Stack => {
            skb.for_us();
            skb.mark();
            if tuple.dst.is_loopback() && !tuple.dst.is_v4() {
                return Some(skb.into_loopback());
            }
            Some(i64::from(TC_ACT_OK))
        }
    }
}
