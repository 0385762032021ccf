//! A network namespace that lives as long as somebody holds it.
//!
//! The namespace has no name: an open file descriptor keeps it. So nothing collides between labs that run
//! at the same time, and the kernel takes it away with its last holder, even after `kill -9`.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    panic,
    path::PathBuf,
    process::{Child, Command},
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace; a clone is another handle on the same one.
#[derive(Clone, Debug)]
pub struct Netns(Arc<File>);

impl Netns {
    /// Makes an empty namespace, with its loopback up.
    pub fn new() -> Result<Self> {
        // A thread of its own, because a namespace belongs to a thread and the caller must keep its own.
        let made = thread::Builder::new().name("netns".into()).spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let file = match made.join() {
            Ok(file) => file.context("cannot make a network namespace: the lab must run as root")?,
            Err(panic) => panic::resume_unwind(panic),
        };
        let netns = Self(Arc::new(file));
        let mut up = Command::new("ip");
        up.args(["link", "set", "lo", "up"]);
        let status = netns.spawn(up)?.wait()?;
        ensure!(status.success(), "`ip link set lo up` in a new network namespace failed: {status}");
        Ok(netns)
    }

    /// The namespace that a process is in.
    pub fn of_process(id: u32) -> Result<Self> {
        let path = format!("/proc/{id}/ns/net");
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        Ok(Self(Arc::new(file)))
    }

    /// Runs `f` inside, on a thread of its own, and waits for it. Sockets that `f` opens stay inside.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
                self.enter()?;
                Ok(f())
            })?;
            inside.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// Starts a thread that stays inside.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let netns = self.clone();
        let inside = move || {
            netns.enter()?;
            Ok(f())
        };
        thread::Builder::new().name(name.into()).spawn(inside).context("cannot start a thread")
    }

    /// Starts a program inside.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        let program = command.get_program().to_owned();
        self.run(move || command.spawn())?.with_context(|| format!("cannot start {}", program.display()))
    }

    /// A path that other processes can enter the namespace by (`nsenter --net=PATH`) while this one lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    fn enter(&self) -> Result<()> {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace of the lab")
    }
}
