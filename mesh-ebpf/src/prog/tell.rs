//! Tells those who watch what becomes of flows.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, maps::PerCpuArray};
use mesh_ebpf::abi::Record;
use mesh_ebpf::packet::Packet;
use mesh_ebpf::verdict::Verdict;

use super::maps::{RECORDS, TOLD};

/// Records of one event per CPU and window: more than anybody reads, and few enough to cost nothing in a flood.
pub(crate) const RECORDS_AT_ONCE: u64 = 8;
/// A window is 2^20 ns, or as long as the kernel's coarse clock stands still: 1 to 10 ms.
const WINDOW: u32 = 20;

/// Tells of a packet, if there is something to tell. A global function, as those in `steps`: most packets of most
/// nodes are told of to nobody.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_tell(packet: *const Packet, verdict: u32) -> u32 {
    if packet.is_null() {
        return 0;
    }
    // SAFETY: callers pass references.
    let packet = unsafe { &*packet };
    let event = Record::event(packet, Verdict(verdict));
    if event == Record::NOTHING || !within(&TOLD, event, RECORDS_AT_ONCE) {
        return 0;
    }
    // Whoever reads too slowly misses some.
    let Some(mut entry) = RECORDS.reserve::<Record>(0) else { return 0 };
    entry.write(Record::new(packet, event));
    entry.submit(0);
    1
}

/// Whether this CPU may do something of a kind once more in this window, which it may do so often.
#[inline(always)]
pub(crate) fn within(rate: &PerCpuArray<[u64; 2]>, kind: u32, most: u64) -> bool {
    let Some(rate) = rate.get_ptr_mut(kind) else { return false };
    // SAFETY: this CPU's own value; the helper has no preconditions.
    unsafe {
        let window = bpf_ktime_get_coarse_ns() >> WINDOW;
        let [last, count] = *rate;
        let count = if last == window { count + 1 } else { 1 };
        *rate = [window, count];
        count <= most
    }
}
