//! Says no, and answers pings: turns a packet into its answer and sends it back the way it came.

use aya_ebpf::helpers::generated::{bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes};
use mesh_ebpf::abi::TCP;
use mesh_ebpf::csum;
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::{ETH, Packet};
use mesh_ebpf::reply::{self, Family, Reply, Unreachable};
use mesh_ebpf::verdict::{Event, Hop, Refusal};

use super::act::{NOBODY, drop_it};
use super::maps::{RATE, REPLY};
use super::node::Node;
use super::skb::{LOOPBACK, Skb};
use super::tell::within;

/// Answers per CPU and window of some milliseconds: enough for every client that knocks, and no more than that for
/// one that floods.
const ANSWERS: u64 = 64;
/// Hop limit of an answered ping, as if it came from a host.
const TTL: u8 = 64;

/// Refuses a packet.
#[inline(never)]
pub(crate) fn refuse(skb: Skb, node: &Node, packet: &Packet, how: u32) -> i32 {
    let Some(out) = REPLY.get_ptr_mut(0) else { return drop_it(node, Event::Malformed) };
    // SAFETY: this CPU's own value; programs of this hook do not interrupt each other.
    let out = unsafe { &mut *out };
    let frame = skb.frame();
    let code = if how == Refusal::Closed as u32 {
        Unreachable::Port
    } else if how == Refusal::Unreachable as u32 {
        Unreachable::Host
    } else {
        Unreachable::Prohibited
    };
    let made = if how == Refusal::TooBig as u32 {
        reply::too_big(out, &frame, packet, node.config().tunnel_mtu as u16, packet.tuple.dst)
    } else if packet.proto == TCP {
        reply::reset(out, &frame, packet)
    } else {
        reply::unreachable(out, &frame, packet, code, packet.tuple.dst)
    };
    if !made
        || !replace(skb, out)
        || (how != Refusal::TooBig as u32 && packet.proto == TCP && !settle(skb, out, packet))
    {
        return drop_it(node, Event::Unanswerable);
    }
    back(skb, node, packet)
}

/// Answers a ping.
#[inline(never)]
pub(crate) fn echo(skb: Skb, node: &Node, packet: &Packet) -> i32 {
    if !turn(skb, packet) {
        return drop_it(node, Event::Malformed);
    }
    back(skb, node, packet)
}

/// The packet as the answer to itself.
#[inline(always)]
fn turn(skb: Skb, packet: &Packet) -> bool {
    let frame = skb.frame();
    let Some([to, from]) = frame.at::<[[u8; 6]; 2]>(0) else { return false };
    let family = Family::of(packet);
    let (src, dst) = (packet.tuple.src.0, packet.tuple.dst.0);
    let later = packet.part == Packet::LATER;
    if packet.tuple.src.is_v4() {
        let Some([ttl, header]) = frame.at::<[u16; 2]>(ETH + 8) else { return false };
        let new = u16::from_ne_bytes([TTL, ttl.to_ne_bytes()[1]]);
        let header = csum::update(header, csum::diff(u32::from(ttl), u32::from(new)));
        skb.address(from, to)
            && skb.put(ETH + 8, [new, header])
            && skb.put(ETH + 12, [dst[3], src[3]])
            && (later || answer::<{ ETH + 20 }>(skb, 0, family))
    } else {
        skb.address(from, to)
            && skb.put(ETH + 7, TTL)
            && skb.put(ETH + 8, dst)
            && skb.put(ETH + 24, src)
            && (later
                || if packet.has_fragment_header() {
                    answer::<{ ETH + 40 + 8 }>(skb, 129, family)
                } else {
                    answer::<{ ETH + 40 }>(skb, 129, family)
                })
    }
}

/// Makes an echo request at a place a reply.
#[inline(always)]
fn answer<const AT: usize>(skb: Skb, kind: u8, family: Family) -> bool {
    let Some([first, field]) = skb.frame().at::<[u16; 2]>(AT) else { return false };
    let first = u16::from_ne_bytes([kind, first.to_ne_bytes()[1]]);
    skb.put(AT, [first, reply::echo_csum(field, family)])
}

/// Puts an answer in the place of the packet.
#[inline(always)]
fn replace(skb: Skb, out: &Reply) -> bool {
    // The verifier wants constants.
    match out.len {
        Reply::RESET_V4 => store(skb, out, Reply::RESET_V4),
        Reply::RESET_V6 => store(skb, out, Reply::RESET_V6),
        Reply::ERROR_V4 => store(skb, out, Reply::ERROR_V4),
        Reply::ERROR_V6 => store(skb, out, Reply::ERROR_V6),
        _ => store(skb, out, Reply::ERROR_FRAGMENT),
    }
}

#[inline(always)]
fn store(skb: Skb, out: &Reply, len: u32) -> bool {
    // SAFETY: the context is valid, and the buffer has more than `len` bytes.
    unsafe {
        bpf_skb_change_tail(skb.0, len, 0) == 0
            && bpf_skb_store_bytes(skb.0, 0, out.start().cast(), len, 0) == 0
    }
}

/// Has the checksum of a reset be right. Where the packet's was to be completed by the device that sends it, the
/// answer's is, too: then it has to be the sum of the pseudo-header. Only the helper knows, and tells by whether
/// it changes the field.
#[inline(always)]
fn settle(skb: Skb, out: &Reply, packet: &Packet) -> bool {
    let v4 = packet.tuple.dst.is_v4();
    let field = if v4 { ETH + 20 + 16 } else { ETH + 40 + 16 };
    let Some(full) = skb.frame().at::<u16>(field) else { return false };
    // SAFETY: the context is valid, and the helper checks the offset.
    unsafe { bpf_l4_csum_replace(skb.0, field as u32, 0, 1, 0) };
    let Some(now) = skb.frame().at::<u16>(field) else { return false };
    if now != full {
        return skb.put(field, full);
    }
    let ends = if v4 { csum::sum(&[out.words[7], out.words[8]]) } else { csum::sum(&addresses(out)) };
    let fixed = csum::add(u32::from(TCP).to_be(), 20_u32.to_be());
    skb.put(field, csum::fold(csum::add(ends, fixed)))
}

#[inline(always)]
const fn addresses(out: &Reply) -> [u32; 8] {
    let w = &out.words;
    [w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13]]
}

/// Back the way it came; what came out of the tunnel has its way back as its hop.
#[inline(always)]
fn back(skb: Skb, node: &Node, packet: &Packet) -> i32 {
    let (config, hop, device) = (node.config(), &packet.hop, packet.device);
    let action = if device == config.tunnel {
        match node.peer(hop.via) {
            Some(peer) if hop.kind == Hop::PEER && skb.address(hop.mac, config.mac) => {
                skb.tunnel(peer, hop.vni, device)
            }
            _ => None,
        }
    } else if device == LOOPBACK {
        skb.mark();
        skb.address(NOBODY, NOBODY).then(|| skb.into_loopback())
    } else {
        Some(skb.out(device))
    };
    match action {
        Some(action) => action as i32,
        None => drop_it(node, Event::NoRoute),
    }
}

/// Whether this CPU may answer once more in this moment.
#[inline(always)]
pub(crate) fn may_answer() -> bool {
    within(&RATE, 0, ANSWERS)
}
