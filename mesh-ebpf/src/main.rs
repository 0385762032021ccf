//! The programs that run in the kernel. On any other target this binary is empty.
//!
//! A program is glue: it reads what the hook gives, asks `mesh_ebpf::pipeline`, and carries out the verdict. What
//! can be decided is decided in the library, where tests reach it.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod prog;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
