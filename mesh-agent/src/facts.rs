//! **Fact.** What is learned from outside.

pub mod devices;
pub mod links;
pub mod sync;
