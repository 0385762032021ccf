//! The contract between the agent and its programs in the kernel.
//!
//! [`abi`] is the layout of every map: both sides compile from it, so they cannot disagree.
//! [`connect`] holds the decisions of the socket-level balancer. They live here and not in the
//! program, because here they are plain functions that are tested on the host; the programs (the
//! binary `mesh-bpf`) only move data between the kernel, the maps and these functions.
//!
//! Nothing in this library panics or allocates: the kernel's verifier would refuse the first, and
//! has no answer to the second.

#![cfg_attr(target_arch = "bpf", no_std)]
#![deny(missing_docs)]

pub mod abi;
pub mod connect;
