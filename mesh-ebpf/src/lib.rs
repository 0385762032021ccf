//! The contract between the agent and its programs in the kernel, and every decision that those make.
//!
//! [`abi`] is the layout of every map: both sides compile from it, so they cannot disagree. [`pipeline`] says
//! what becomes of a packet, in terms of the [`kernel::Kernel`] trait; the programs (the binary `mesh-bpf`)
//! give it the packet and the real maps and carry out its [`verdict::Verdict`], tests give it others. So the
//! code that runs in the kernel is the code that is tested and fuzzed on the host.
//!
//! Nothing in this library panics, allocates or loops without a bound: the kernel's verifier would refuse it.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![deny(missing_docs)]

pub mod abi;
pub mod atomic;
pub mod csum;
pub mod flow;
pub mod fragment;
pub mod frame;
pub mod hash;
pub mod kernel;
pub mod mss;
pub mod packet;
pub mod pipeline;
pub mod probe;
pub mod reply;
pub mod sock;
#[cfg(any(test, feature = "testing"))]
#[allow(clippy::unwrap_used, reason = "for tests")]
pub mod testing;
pub mod tunnel;
pub mod verdict;
