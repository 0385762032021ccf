//! The programs, one for each kind of device that packets come in by.

use aya_ebpf::bindings::{TC_ACT_REDIRECT, xdp_action::XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::Packet;
use mesh_ebpf::pipeline;
use mesh_ebpf::verdict::{Event, Refusal, Verdict};

use super::act::{PASS, act, drop_it, fits, read};
use super::fragments::{recall, remember};
use super::node::Node;
use super::reflect::reflect;
use super::refuse::{echo, may_answer, refuse};
use super::skb::Skb;
use super::tell::mesh_tell;

/// On the host's end of each task's veth.
#[classifier]
fn mesh_from_task(ctx: TcContext) -> i32 {
    run(
        Skb(ctx.skb.skb),
        #[inline(always)]
        |node, packet| pipeline::from_task(node, packet, packet.device),
    )
}

/// On the node's own devices.
#[classifier]
fn mesh_from_net(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let action = run(
        skb,
        #[inline(always)]
        |node, packet| pipeline::from_net(node, packet, packet.device),
    );
    if action == PASS { reflect(skb) } else { action }
}

/// On the loopback device.
#[classifier]
fn mesh_from_host(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.is_marked() {
        return PASS;
    }
    run(
        skb,
        #[inline(always)]
        |node, packet| pipeline::from_host(node, packet),
    )
}

/// On the tunnel device.
#[classifier]
fn mesh_from_mesh(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match read(skb) {
        Ok((node, packet)) => {
            // Of a later fragment nothing else is judged.
            let verdict = if packet.part == Packet::LATER && sender(skb, &node) == NOBODY_WE_KNOW {
                Verdict::drop(Event::Spoofed)
            } else {
                whole(
                    skb,
                    &node,
                    packet,
                    #[inline(always)]
                    |node, packet| untunnelled(skb, node, packet),
                )
            };
            finish(skb, &node, packet, verdict)
        }
        Err(action) => unread(skb, action),
    }
}

/// What is not read is the kernel's, if a node sent it.
#[inline(never)]
fn unread(skb: Skb, action: i32) -> i32 {
    match Node::get() {
        Some(node) if sender(skb, &node) == NOBODY_WE_KNOW => drop_it(&node, Event::Spoofed),
        _ => action,
    }
}

/// Reads a packet, has it judged, and does what the verdict says.
#[inline(always)]
fn run(skb: Skb, judge: impl FnOnce(&Node, &mut Packet) -> Verdict) -> i32 {
    match read(skb) {
        Ok((node, packet)) => {
            let verdict = whole(skb, &node, packet, judge);
            finish(skb, &node, packet, verdict)
        }
        Err(action) => action,
    }
}

#[inline(always)]
fn untunnelled(skb: Skb, node: &Node, packet: &mut Packet) -> Verdict {
    let sender = sender(skb, node);
    if sender == NOBODY_WE_KNOW {
        return Verdict::drop(Event::Spoofed);
    }
    let Some(macs) = skb.frame().at(0) else { return Verdict::drop(Event::Malformed) };
    pipeline::from_mesh(node, packet, (sender >> 32) as u32, sender as u32, macs)
}

/// No node has this number.
const NOBODY_WE_KNOW: u64 = 0;

/// The number of the node that tunnelled a packet, and the tunnel's key, as one word. Its own function, because the
/// stack of a program has 512 bytes.
#[inline(never)]
fn sender(skb: Skb, node: &Node) -> u64 {
    let Some((remote, vni)) = skb.tunnelled() else { return NOBODY_WE_KNOW };
    let peer = node.peer_number(&remote);
    peer.map_or(NOBODY_WE_KNOW, |peer| u64::from(peer) << 32 | u64::from(vni))
}

/// Has a packet judged; of one in parts only the first.
#[inline(always)]
fn whole(
    skb: Skb,
    node: &Node,
    packet: &mut Packet,
    judge: impl FnOnce(&Node, &mut Packet) -> Verdict,
) -> Verdict {
    if packet.part == Packet::LATER {
        return recall(skb, node, packet);
    }
    let verdict = judge(node, packet);
    if packet.part == Packet::FIRST {
        remember(packet, verdict);
    }
    verdict
}

#[inline(always)]
fn finish(skb: Skb, node: &Node, packet: &mut Packet, verdict: Verdict) -> i32 {
    let verdict = limit(skb, node, packet, verdict);
    if node.config().watched != 0 {
        mesh_tell(packet, verdict.0);
    }
    if verdict == Verdict::PASS {
        return PASS;
    }
    if verdict == Verdict::WAIT {
        return TC_ACT_REDIRECT;
    }
    if verdict == Verdict::ECHO {
        return echo(skb, node, packet);
    }
    if let Some(how) = verdict.refused() {
        return refuse(skb, node, packet, how as u32);
    }
    act(skb, node, packet, verdict)
}

/// The verdict, if the packet fits where it is to go, and if there are not too many answers in this moment.
#[inline(always)]
fn limit(skb: Skb, node: &Node, packet: &mut Packet, mut verdict: Verdict) -> Verdict {
    if verdict == Verdict::SEND && !fits(skb, node, packet) {
        node.count(Event::TooBig);
        packet.event = Event::TooBig as u8;
        verdict = Verdict::refuse(Refusal::TooBig);
    }
    let is_answer = verdict == Verdict::ECHO || verdict.refused().is_some();
    if is_answer && !may_answer() { Verdict::drop(Event::RateLimited) } else { verdict }
}

/// Does nothing: what a hook alone costs.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    PASS
}

/// Does nothing at the hook of programs that ours are compared with.
#[xdp]
fn empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}
