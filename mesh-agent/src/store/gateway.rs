//! **Effect.** The store of another machine: a local store served over HTTP, and the client for it.
//!
//! Requests are JSON, a watch is a stream of lines. Who comes is known by a certificate, and may do what its role says;
//! or, in a small lab, by a shared secret, and may do everything (docs/adr/0024).

mod access;
mod client;
mod cluster;
mod connection;
mod dial;
mod server;
mod several;
mod watch;
mod wire;

pub use access::Access;
pub use client::GatewayStore;
pub use server::serve;
pub use several::SeveralGateways;

pub(crate) use super::secret::read_key;
pub use super::secret::{Secret, SecretError};
