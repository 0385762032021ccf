//! **Effect.** The data planes: what makes the kernel balance, isolate and translate as planned.
//!
//! One contract ([`mesh_core::plan::Balance`]), several implementations; which one a node runs is its
//! configuration's choice.

pub mod conntrack;
pub mod ebpf;
pub mod nft;
