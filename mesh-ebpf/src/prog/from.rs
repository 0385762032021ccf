//! The programs, one for each kind of device that packets come in by.

use aya_ebpf::{macros::classifier, programs::TcContext};
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::Packet;
use mesh_ebpf::pipeline;
use mesh_ebpf::verdict::{Event, Hop, Verdict};

use super::act::{PASS, act, read};
use super::node::Node;
use super::refuse::{echo, refuse};
use super::skb::Skb;
use super::tell::mesh_tell;

/// On the host's end of each task's veth.
#[classifier]
fn from_task(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match read(skb) {
        Ok((node, packet)) => {
            packet.hop = Hop::uplink(skb.device());
            let verdict = pipeline::from_task(&node, packet, skb.device());
            finish(skb, &node, packet, verdict)
        }
        Err(action) => action,
    }
}

/// On the node's own devices.
#[classifier]
fn from_net(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match read(skb) {
        Ok((node, packet)) => {
            packet.hop = Hop::uplink(skb.device());
            let verdict = pipeline::from_net(&node, packet, skb.device());
            finish(skb, &node, packet, verdict)
        }
        Err(action) => action,
    }
}

/// On the loopback device.
#[classifier]
fn from_host(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.is_marked() {
        return PASS;
    }
    match read(skb) {
        Ok((node, packet)) => {
            let verdict = pipeline::from_host(&node, packet);
            finish(skb, &node, packet, verdict)
        }
        Err(action) => action,
    }
}

/// On the tunnel device, over IPv4.
#[classifier]
fn from_mesh4(ctx: TcContext) -> i32 {
    from_mesh(Skb(ctx.skb.skb), false)
}

/// On the tunnel device, over IPv6.
#[classifier]
fn from_mesh6(ctx: TcContext) -> i32 {
    from_mesh(Skb(ctx.skb.skb), true)
}

#[inline(always)]
fn from_mesh(skb: Skb, v6: bool) -> i32 {
    match read(skb) {
        Ok((node, packet)) => {
            let verdict = untunnelled(skb, &node, packet, v6);
            finish(skb, &node, packet, verdict)
        }
        Err(action) => action,
    }
}

#[inline(always)]
fn untunnelled(skb: Skb, node: &Node, packet: &mut Packet, v6: bool) -> Verdict {
    let Some((remote, vni)) = skb.tunnelled(v6) else { return Verdict::drop(Event::Spoofed) };
    let Some(peer) = node.peer_number(&remote) else { return Verdict::drop(Event::Spoofed) };
    let Some(mac) = skb.frame().at(0) else { return Verdict::drop(Event::Malformed) };
    pipeline::from_mesh(node, packet, peer, vni, mac)
}

#[inline(always)]
fn finish(skb: Skb, node: &Node, packet: &Packet, verdict: Verdict) -> i32 {
    if node.config().watched != 0 {
        mesh_tell(packet, verdict.0);
    }
    if verdict == Verdict::PASS {
        return PASS;
    }
    if verdict == Verdict::ECHO {
        return echo(skb, node, packet);
    }
    match verdict.refused() {
        Some(how) => refuse(skb, node, packet, how as u32),
        None => act(skb, node, packet, verdict),
    }
}

/// Does nothing: what a hook alone costs.
#[classifier]
fn empty(_ctx: TcContext) -> i32 {
    PASS
}
