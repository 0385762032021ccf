//! What the agent learns the time of programs by.

use aya_ebpf::{helpers::generated::bpf_jiffies64, macros::classifier, programs::TcContext};

use super::act::PASS;
use super::skb::Skb;

/// Writes the kernel's count of timer interrupts over the beginning of a frame, which is of nobody.
#[classifier]
fn mesh_clock(ctx: TcContext) -> i32 {
    // SAFETY: the helper has no preconditions.
    Skb(ctx.skb.skb).put(0, unsafe { bpf_jiffies64() });
    PASS
}
