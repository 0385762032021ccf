//! Decisions of the socket-level balancer: what `connect(2)` asks for, and where it goes instead.
//!
//! The kernel hands the destination of a `connect` over in `struct bpf_sock_addr`: the address as a
//! `u32` and the port as the low half of another `u32`, both with their bytes in network order in
//! memory. The functions here take and give these raw words, so that byte order is dealt with once.

use crate::abi::{Addr16, Backend, FrontendKey, NetPort, SLOT_COUNT};

/// The key that a `connect` over IPv4 looks for.
///
/// `user_ip4` and `user_port` are the raw words of `bpf_sock_addr`, `proto` its IP protocol number.
/// A protocol that does not fit a byte (MPTCP is 262) is `None`: no frontend can have it.
#[inline(always)]
pub fn key_v4(user_ip4: u32, user_port: u32, proto: u32) -> Option<FrontendKey> {
    // A shift, and not `u8::try_from`: the verifier follows it without a branch on the error type.
    if proto >> 8 != 0 {
        return None;
    }
    let addr = Addr16::from_v4(user_ip4.to_ne_bytes());
    let port = NetPort((user_port as u16).to_ne_bytes());
    Some(FrontendKey::new(addr, port, proto as u8))
}

/// Cuts a random number down to the index of a slot. Always below [`SLOT_COUNT`].
#[inline(always)]
pub const fn slot(random: u32) -> usize {
    (random & (SLOT_COUNT - 1)) as usize
}

/// How the frontend was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// By its address and port.
    Exact,
    /// By its address alone ([`NetPort::ANY`]): the flow keeps its port.
    AnyPort,
}

/// The port that the flow goes to: the backend's own, or the one that the client asked for.
#[inline(always)]
pub fn target_port(found: Match, asked: NetPort, backend: NetPort) -> NetPort {
    match found {
        Match::AnyPort => asked,
        Match::Exact if backend.0 == NetPort::ANY.0 => asked,
        Match::Exact => backend,
    }
}

/// A destination as raw words of `bpf_sock_addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target4 {
    /// To be stored in `user_ip4`.
    pub user_ip4: u32,
    /// To be stored in `user_port`.
    pub user_port: u32,
}

/// Where a `connect` over IPv4 to `key` goes, or `None` when the backend has no IPv4 address.
#[inline(always)]
pub fn target_v4(found: Match, key: &FrontendKey, backend: &Backend) -> Option<Target4> {
    let addr = backend.addr.to_v4()?;
    let port = target_port(found, key.port, backend.port);
    Some(Target4 { user_ip4: u32::from_ne_bytes(addr), user_port: u32::from(u16::from_ne_bytes(port.0)) })
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
