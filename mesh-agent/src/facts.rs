//! **Fact.** What is learned from outside: of the store, of the kernel, of those who run tasks.

pub mod sync;
