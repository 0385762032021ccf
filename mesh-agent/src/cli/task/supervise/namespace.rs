//! **Effect.** The namespaces of a task: its own network, and its own view of the mounts.

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Leaves the present namespaces. Only for a process without other threads.
pub(super) fn enter() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context("cannot make a network namespace")?;
    // What we mount stays here; what the machine mounts or takes away later still comes in. With a private
    // copy, a disk that is taken out would stay busy for as long as the task runs.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("cannot keep the task's mounts apart")
}
