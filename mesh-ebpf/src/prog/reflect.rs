//! Answers other nodes' probes: the kernel does, whatever the agent is doing.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_l4_csum_replace};
use mesh_ebpf::abi::{Addr16, UDP};
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::ETH;
use mesh_ebpf::probe::{self, LEN, PORT, Words};

use super::act::PASS;
use super::maps::{PROBED, STANDING};
use super::node::Node;
use super::skb::Skb;
use super::tell::within;

/// Answers per CPU and window of a millisecond or some: a thousand nodes ask as often within one.
const ANSWERS: u64 = 256;
/// In the byte order of packets.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// IPv4 without options.
const PLAIN: u8 = 0x45;
/// More fragments, or not the first one.
const FRAGMENT: u16 = 0x3fff_u16.to_be();

/// Sends a probe back as its answer; whatever else it is, the kernel goes on with it.
#[inline(never)]
pub(crate) fn reflect(skb: Skb) -> i32 {
    let frame = skb.frame();
    let answered = match frame.at::<u16>(12) {
        Some(IPV4)
            if frame.at::<u8>(ETH) == Some(PLAIN)
                && frame.at::<u8>(ETH + 9) == Some(UDP)
                && frame.at::<u16>(ETH + 6).is_some_and(|part| part & FRAGMENT == 0) =>
        {
            answer::<{ ETH + 20 }>(skb, true)
        }
        Some(IPV6) if frame.at::<u8>(ETH + 6) == Some(UDP) => answer::<{ ETH + 40 }>(skb, false),
        _ => None,
    };
    answered.unwrap_or(PASS)
}

/// The datagram whose header is at `L4`.
#[inline(always)]
fn answer<const L4: usize>(skb: Skb, v4: bool) -> Option<i32> {
    let frame = skb.frame();
    let [from, to, len] = frame.at::<[u16; 3]>(L4)?;
    if to != PORT.to_be() || len != (8 + LEN as u16).to_be() || !skb.is_for_us() {
        return None;
    }
    let words = frame.at::<Words>(L4 + 8)?;
    let (src, dst) = if v4 {
        let [src, dst] = frame.at::<[u32; 2]>(ETH + 12)?;
        (Addr16::from_word(src), Addr16::from_word(dst))
    } else {
        let [src, dst] = frame.at::<[[u32; 4]; 2]>(ETH + 8)?;
        (Addr16(src), Addr16(dst))
    };
    // What goes through this node to another is not ours to answer.
    if !Node::get()?.is_local(&dst) || !within(&PROBED, 0, ANSWERS) {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let (words, diff) = probe::answer(&words, STANDING.get(0)?, now)?;
    let [to_mac, from_mac] = frame.at::<[[u8; 6]; 2]>(0)?;
    // An agent may ask from any port, and ours is where it listens: ports change their places, which no sum sees.
    let turned = skb.address(from_mac, to_mac)
        && if v4 {
            skb.put(ETH + 12, [dst.0[3], src.0[3]])
        } else {
            skb.put(ETH + 8, dst.0) && skb.put(ETH + 24, src.0)
        }
        && skb.put(L4, [to, from])
        && skb.put(L4 + 8, words);
    if !turned {
        return None;
    }
    // SAFETY: the context is valid, and the helper checks the offset.
    unsafe { bpf_l4_csum_replace(skb.0, (L4 + 6) as u32, 0, diff as u64, BPF_F_MARK_MANGLED_0 as u64) };
    Some(skb.out(skb.device()) as i32)
}
