//! **Effect.** The thread that answers. It has nothing else to do: names wait neither for a round of the agent, however much that
//! computes, nor for one thread to wake another.

use std::future::Future;
use std::io;
use std::thread;

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Its handle. Dropped, the thread ends, and all that runs on it.
pub(super) struct Thread {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl Thread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("names".to_owned()).spawn(move || runtime.block_on(ended))?;
        Ok(Self { runtime: handle, _end: end })
    }

    /// Sockets that are made as long as this lives are read by the thread.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    pub(super) fn spawn(&self, tasks: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
        tasks.spawn_on(work, &self.runtime);
    }
}
