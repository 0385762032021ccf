//! The data plane's programs as the kernel runs them, packet by packet. Needs root.
//!
//! Nothing is attached: the kernel is given a packet and says what its program made of it (`BPF_PROG_TEST_RUN`).

#[path = "datapath/verifier.rs"]
mod verifier;
