//! **Effect.** A wire that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// A wire between a client and a server that breaks (or, at 0, goes dead) after so many bytes of either side.
pub(crate) struct Wire {
    pub(crate) addr: String,
    pub(crate) budget: Arc<AtomicUsize>,
    tasks: TaskTracker,
    broken: Arc<AtomicUsize>,
}

impl Wire {
    /// How many connections have ended.
    pub(crate) fn broken(&self) -> usize {
        self.broken.load(Ordering::SeqCst)
    }

    pub(crate) async fn to(target: &str, budget: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (budget, broken) = (Arc::new(AtomicUsize::new(budget)), Arc::default());
        let wire = Self { addr, budget, tasks: TaskTracker::new(), broken };
        let (target, budget, tasks) = (target.to_owned(), Arc::clone(&wire.budget), wire.tasks.clone());
        let broken = Arc::clone(&wire.broken);
        wire.tasks.spawn(async move {
            let mut number = 0;
            while let Ok((near, _)) = listener.accept().await {
                number += 1;
                let far = TcpStream::connect(&target).await.unwrap();
                let (budget, broken) = (Arc::clone(&budget), Arc::clone(&broken));
                tasks.spawn(async move {
                    pass(near, far, budget, number).await;
                    broken.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        wire
    }
}

async fn pass(mut near: TcpStream, mut far: TcpStream, budget: Arc<AtomicUsize>, number: usize) {
    let (mut passed, mut up, mut down) = (0, [0; 64], [0; 64]);
    loop {
        let (bytes, to_far) = tokio::select! {
            read = near.read(&mut up) => (read.unwrap_or(0), true),
            read = far.read(&mut down) => (read.unwrap_or(0), false),
        };
        let limit = budget.load(Ordering::SeqCst);
        if limit == 0 {
            std::future::pending::<()>().await;
        }
        // Each connection breaks somewhere else.
        if bytes == 0 || passed > limit.saturating_add(number * 37 % 600) {
            return;
        }
        passed += bytes;
        let sent = match to_far {
            true => far.write_all(&up[..bytes]).await,
            false => near.write_all(&down[..bytes]).await,
        };
        if sent.is_err() {
            return;
        }
    }
}
