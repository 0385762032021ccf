//! **Fact.** What is learned from outside.

pub mod links;
pub mod sync;
