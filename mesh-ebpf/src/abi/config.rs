//! What holds for the whole node.

use super::Mac;

/// How long an idle flow is remembered, in ticks of [`crate::flow::TICK`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, only the client was heard.
    pub opening: u32,
    /// TCP, established.
    pub established: u32,
    /// TCP, one side has ended.
    pub closing: u32,
    /// UDP, heard once.
    pub datagram: u32,
    /// UDP, heard again.
    pub stream: u32,
}

impl Default for Timeouts {
    /// Six hours for what is established: nobody's idle connection is cut before its own keep-alive
    /// (two hours, RFC 9293 §3.8.4) had several turns.
    fn default() -> Self {
        Self { opening: 60, established: 6 * 3600, closing: 60, datagram: 30, stream: 180 }
    }
}

/// Value of `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Places flows in their tables; random, so that nobody outside can aim at one place.
    pub table_seed: u64,
    /// Chooses backends where nodes need not agree; random.
    pub node_seed: u64,
    /// Chooses backends where all nodes agree.
    pub mesh_seed: u64,
    /// Buckets of `FLOWS_TCP` less one; the number is a power of two.
    pub tcp_mask: u32,
    /// Buckets of `FLOWS_UDP` less one.
    pub udp_mask: u32,
    /// The tunnel device; 0: none.
    pub tunnel: u32,
    /// Bytes of an IP packet that fit into the tunnel.
    pub tunnel_mtu: u32,
    /// When flows are forgotten.
    pub timeouts: Timeouts,
    /// What `bpf_l4_csum_replace` wants to be told of IPv6 (`BPF_F_IPV6`), where the kernel knows it.
    pub csum_v6: u32,
    /// The MAC of the tunnel device.
    pub mac: Mac,
    /// Whether somebody watches: 1, and then records are written; otherwise 0.
    pub watched: u8,
    /// Zero.
    pub pad: u8,
}

const _: () = assert!(size_of::<Config>() == 72);
