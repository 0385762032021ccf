//! What the agent learns by running a program itself: the time of programs, and what helpers know.

use aya_ebpf::bindings::BPF_F_PSEUDO_HDR;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_l4_csum_replace};
use aya_ebpf::{macros::classifier, programs::TcContext};
use mesh_ebpf::abi::Config;
use mesh_ebpf::packet::ETH;

use super::act::PASS;
use super::skb::Skb;

/// Writes the kernel's count of timer interrupts over the beginning of a frame, which is of nobody.
#[classifier]
fn mesh_clock(ctx: TcContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    Skb(ctx.skb.skb).put(0, unsafe { bpf_jiffies64() });
    PASS
}

/// Changes nothing of a frame: 0, if the helper knows the flag that IPv6 wants.
#[classifier]
fn mesh_csum_v6(ctx: TcContext) -> i32 {
    let flags = BPF_F_PSEUDO_HDR as u64 | u64::from(Config::CSUM_V6);
    // SAFETY: the context is valid, and the helper checks the offset.
    unsafe { bpf_l4_csum_replace(ctx.skb.skb, ETH as u32, 0, 0, flags) as i32 }
}
