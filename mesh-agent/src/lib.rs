//! **Effect.** Everything that touches the world: the store, the kernel, sockets and people.
//!
//! The guided tour follows one change. A person asks for it through [`cli`] and [`api`]; [`control`] has
//! `mesh_core::change` decide and commits the transaction to the [`store`]. Every node's [`facts`] learn of
//! it and publish a new snapshot; [`reconcile`] has `mesh_core::plan` say what this node must be, and each
//! [`plane`] makes it so: [`overlay`], [`dataplane`], and [`dns`] for names. What came of it is [`status`].
//! [`pki`] says who nodes are, and [`agent`] only puts these parts together.
#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod attempts;
pub mod checks;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod demo;
mod disk;
pub mod dns;
pub mod doctor;
pub mod events;
pub mod facts;
pub mod handed;
pub mod health;
pub mod liveness;
pub mod logs;
pub mod metrics;
pub mod netns;
pub mod overlay;
pub mod passive;
pub mod pki;
pub mod plane;
pub mod reconcile;
pub mod replicas;
pub mod status;
pub mod store;
pub mod tasks;
