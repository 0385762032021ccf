//! **Decision.** The model of the mesh and every decision that it takes.
//!
//! Nothing here does I/O, reads a clock, draws a random number or awaits: what varies comes in as an
//! argument, so the same input gives byte-identical output on every node, and every decision is tested
//! without root. Reading order:
//!
//! 1. [`model`]: the nouns (network, service, task, node) and [`model::Snapshot`], the whole world.
//! 2. [`kv`] and [`records`]: how the world is written down as keys, values and transactions.
//! 3. [`change`]: what a user asks for, checked against a snapshot, becomes one transaction or one refusal.
//! 4. [`plan`]: what one node's kernel and DNS must look like for a snapshot.
//! 5. [`diff`]: what to do so that what is there becomes what is wanted.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backup;
pub mod certificate;
pub mod change;
pub mod diff;
pub mod dns;
pub mod doctor;
pub mod etcd;
pub mod events;
pub mod explain;
pub mod health;
pub mod journal;
pub mod kv;
pub mod liveness;
pub mod maglev;
pub mod members;
pub mod message;
pub mod model;
pub mod passive;
pub mod plan;
pub mod quarantine;
pub mod readiness;
pub mod records;
pub mod replica;
pub mod replicas;
pub mod rights;
pub mod serving;
pub mod token;
pub mod top;
pub mod whois;
