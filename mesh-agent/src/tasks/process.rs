//! **Fact.** Whether a process still runs, told from a later one with the same number.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::netns;

/// Returns once the process that started at `start` is gone: at once where the kernel can tell (pidfd_open(2)).
pub(super) async fn ended(pid: u32, start: u64) {
    // Only a missing or another process is an end; whatever else keeps us from looking says nothing.
    let runs = || match netns::start_of(pid) {
        Ok(found) => found == start,
        Err(error) => !netns::is_gone(&error),
    };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(fd) = raw.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
        && let Ok(fd) = watch(fd)
    {
        // Only now is it sure whose descriptor this is.
        if !runs() {
            return;
        }
        if fd.readable().await.is_ok() {
            return;
        }
    }
    while runs() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[expect(deprecated, reason = "its replacement is unsafe; an OwnedFd has all that this one cannot check")]
fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
