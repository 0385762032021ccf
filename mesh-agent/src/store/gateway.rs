//! **Effect.** The store of another machine: a local store served over HTTP, and the client for it.
//!
//! So the nodes of a small lab share one agent's store without any other program. Requests are JSON, a watch
//! is a stream of lines; whoever knows the token may do everything.

mod client;
mod server;
mod several;
mod watch;
mod wire;

pub use client::GatewayStore;
pub use server::serve;
pub use several::SeveralGateways;

pub use super::secret::{Secret, SecretError};
