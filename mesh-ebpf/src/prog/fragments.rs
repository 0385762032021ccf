//! Fragments: what became of the first becomes of all.

use mesh_ebpf::fragment::{FragmentKey, FragmentValue};
use mesh_ebpf::kernel::Kernel;
use mesh_ebpf::packet::Packet;
use mesh_ebpf::verdict::{Event, Verdict};

use super::maps::FRAGMENTS;
use super::node::Node;
use super::refuse::may_answer;
use super::skb::Skb;

/// How often a fragment goes back to the end of the queue before it is taken for one whose first part is lost. Each
/// time is some microseconds.
const TIMES: u32 = 200;

/// Remembers what becomes of a first fragment.
#[inline(never)]
pub(crate) fn remember(packet: &Packet, verdict: Verdict) {
    let value = FragmentValue::of(packet, verdict);
    // Without it the others wait in vain and are left to the node's kernel.
    let _ = FRAGMENTS.insert(&FragmentKey::of(packet, packet.device), &value, 0);
}

/// What becomes of a later fragment.
#[inline(never)]
pub(crate) fn recall(skb: Skb, node: &Node, packet: &mut Packet) -> Verdict {
    // SAFETY: the value is copied at once; see `Node`.
    let known = unsafe { FRAGMENTS.get(&FragmentKey::of(packet, packet.device)) };
    let waited = skb.waited();
    if let Some(known) = known {
        if waited != 0 {
            skb.unmark();
        }
        return known.apply(packet);
    }
    // Waiting costs: as much of it as of answers, so that nobody keeps a CPU busy with fragments of nothing.
    if waited >= TIMES || (waited == 0 && !may_answer()) {
        skb.unmark();
        node.count(Event::Fragment);
        return Verdict::PASS;
    }
    if waited == 0 {
        node.count(Event::FragmentWaits);
    }
    skb.wait(packet.device, waited + 1);
    Verdict::WAIT
}
