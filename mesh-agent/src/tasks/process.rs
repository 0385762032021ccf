//! **Fact.** Whether a process still runs, told from a later one with the same number.

use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::netns;

/// Returns once the process that started at `start` is gone: at once where the kernel can tell (pidfd_open(2)).
pub(super) async fn ended(pid: u32, start: u64) {
    let runs = || netns::start_time(pid).is_ok_and(|found| found == start);
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(fd) = raw.and_then(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK).ok())
        && let Ok(fd) = AsyncFd::with_interest(fd, Interest::READABLE)
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
