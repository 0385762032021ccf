//! Steps of the pipeline as global functions: the verifier looks at each once, and not at every call.
//!
//! It takes nothing of their callers for granted. So they are told that a pointer is one, and find the node anew.

use mesh_ebpf::abi::NO_BACKEND;
use mesh_ebpf::flow::Head;
use mesh_ebpf::packet::Packet;
use mesh_ebpf::pipeline::{Seen, step};
use mesh_ebpf::verdict::Verdict;

use super::node::Node;

/// The packet behind a pointer, and the node.
macro_rules! known {
    ($packet:ident, $none:expr) => {{
        if $packet.is_null() {
            return $none;
        }
        let Some(node) = Node::get() else { return $none };
        // SAFETY: callers pass references, and nobody else has this CPU's packet meanwhile.
        (node, unsafe { &mut *$packet })
    }};
}

/// See [`step::answer`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_answer(packet: *mut Packet) -> u32 {
    let (node, packet) = known!(packet, Verdict::PASS.0);
    step::answer(&node, packet).0
}

/// See [`step::error`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_error(packet: *mut Packet) -> u32 {
    let (node, packet) = known!(packet, Verdict::PASS.0);
    step::error(&node, packet).0
}

/// See [`step::pick`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_pick(packet: *const Packet) -> u32 {
    let packet = packet.cast_mut();
    let (node, packet) = known!(packet, NO_BACKEND);
    step::pick(&node, packet)
}

/// See [`step::origin`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_origin(packet: *mut Packet, proto: u32, put: u32) -> u32 {
    let (node, packet) = known!(packet, 0);
    u32::from(step::origin(&node, packet, proto as u8, put != 0))
}

/// See [`step::retrace`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_retrace(packet: *mut Packet) -> u64 {
    let (node, packet) = known!(packet, 0);
    step::retrace(&node, packet).0
}

/// See [`step::undo`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_undo(packet: *mut Packet) -> u64 {
    let (node, packet) = known!(packet, 0);
    step::undo(&node, packet).0
}

/// See [`step::readmit`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_readmit(packet: *mut Packet, head: u64) -> u64 {
    let (node, packet) = known!(packet, 0);
    step::readmit(&node, packet, Head(head)).0
}

/// See [`step::begin`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_begin(packet: *mut Packet, head: u64) -> u32 {
    let (node, packet) = known!(packet, Verdict::PASS.0);
    step::begin(&node, packet, Head(head)).0
}

/// See [`step::place`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_place(packet: *const Packet, may_insert: u32) -> u32 {
    let packet = packet.cast_mut();
    let (node, packet) = known!(packet, 0);
    u32::from(step::place(&node, packet, may_insert != 0))
}

/// See [`step::sign`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn mesh_sign(packet: *const Packet, seen: u32, of: u32) -> u32 {
    let packet = packet.cast_mut();
    let (node, packet) = known!(packet, 0);
    let seen = match seen {
        0 => Seen::Given,
        1 => Seen::Passed,
        2 => Seen::Sent,
        _ => Seen::Error,
    };
    step::sign(&node, packet, seen, of);
    1
}
