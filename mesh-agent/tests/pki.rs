//! **Effect.** Certificates on real connections: nodes join, renew, may do what is theirs, and lose what they had; and what
//! comes of everything that is wrong.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "pki/hostile.rs"]
mod hostile;
#[path = "pki/joining.rs"]
mod joining;
#[path = "pki/kit.rs"]
mod kit;
#[path = "pki/life.rs"]
mod life;
#[path = "pki/work.rs"]
mod work;

/// A gateway with certificates is a store as any other.
mod conformance {
    mesh_agent::store_conformance!(super::kit::AsManager::fresh());
}
