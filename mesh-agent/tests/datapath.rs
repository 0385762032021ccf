//! The data plane's programs as the kernel runs them, packet by packet. Needs root.
//!
//! Nothing is attached: the kernel is given a packet and says what its program made of it (`BPF_PROG_TEST_RUN`). The
//! pipeline decides the same packet in memory, and both must agree in everything: verdict, bytes, flows, counters.

#[path = "datapath/frame.rs"]
mod frame;
#[path = "datapath/life.rs"]
mod life;
#[path = "datapath/malformed.rs"]
mod malformed;
#[path = "datapath/model.rs"]
mod model;
#[path = "datapath/node.rs"]
mod node;
#[path = "datapath/random.rs"]
mod random;
#[path = "datapath/refusals.rs"]
mod refusals;
#[path = "datapath/verifier.rs"]
mod verifier;
#[path = "datapath/world.rs"]
mod world;
