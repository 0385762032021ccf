//! Packets' lives: from a client over one or two nodes to a task, and back.

mod failures;
mod life;
mod options;
mod oracle;
mod ports;
mod signs;
mod sockets;
mod told;
mod world;
