//! Steady load: short HTTP requests at a fixed rate, and what became of each.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::Netns;

/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// As many requests may hang before the rate suffers.
const WORKERS: usize = 16;

/// Steady load that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Load {
    plan: Arc<Plan>,
    workers: Vec<JoinHandle<Result<Report>>>,
}

#[derive(Debug)]
struct Plan {
    targets: Vec<SocketAddr>,
    interval: Duration,
    start: Instant,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Asks the targets in turn from inside `netns`, `rate` times a second, each time over a new connection.
    pub fn start(netns: &Netns, targets: &[SocketAddr], rate: u32) -> Result<Self> {
        ensure!(!targets.is_empty(), "load needs a target");
        ensure!(rate > 0, "load needs a rate of at least one request a second");
        let plan = Arc::new(Plan {
            targets: targets.into(),
            interval: Duration::from_secs(1) / rate,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut load = Self { plan, workers: Vec::new() };
        for _ in 0..WORKERS {
            let plan = Arc::clone(&load.plan);
            load.workers.push(netns.thread("load", move || plan.work())?);
        }
        Ok(load)
    }

    /// Ends it, lets the open requests finish, and tells what happened.
    pub fn stop(mut self) -> Result<Report> {
        self.plan.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for worker in self.workers.drain(..) {
            let Ok(part) = worker.join() else { bail!("a thread of the load panicked") };
            report.add(part?);
        }
        report.failed.sort_by_key(|failure| failure.at);
        report.lasted = self.plan.start.elapsed();
        Ok(report)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.plan.stop.store(true, Ordering::Relaxed);
    }
}

impl Plan {
    fn work(&self) -> Report {
        let mut report = Report::default();
        loop {
            let ticket = self.next.fetch_add(1, Ordering::Relaxed);
            let due = self.interval.mul_f64(ticket as f64);
            if !self.wait_until(due) {
                return report;
            }
            let target = self.targets[(ticket % self.targets.len() as u64) as usize];
            let at = self.start.elapsed();
            match request(target) {
                Ok(answer) => report.count(&answer),
                Err(error) => report.failed.push(Failure { at, target, reason: format!("{error:#}") }),
            }
        }
    }

    /// False when the load ends before.
    fn wait_until(&self, due: Duration) -> bool {
        while !self.stop.load(Ordering::Relaxed) {
            match due.checked_sub(self.start.elapsed()) {
                Some(rest) if !rest.is_zero() => thread::sleep(rest.min(Duration::from_millis(20))),
                _ => return true,
            }
        }
        false
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many were answered.
    pub ok: u64,
    /// Those that were not, oldest first.
    pub failed: Vec<Failure>,
    /// Answers by who gave them (`web.1`).
    pub by_backend: BTreeMap<String, u64>,
    /// Answers by the client's address as the backend saw it.
    pub by_client: BTreeMap<String, u64>,
    /// From the start to the last answer.
    pub lasted: Duration,
}

/// A request without an answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it was sent, from the start of the load.
    pub at: Duration,
    /// Whom it was sent to.
    pub target: SocketAddr,
    /// What went wrong.
    pub reason: String,
}

impl Report {
    /// An error that shows the first failures, unless all requests (and some) were answered.
    pub fn lossless(&self) -> Result<()> {
        ensure!(self.failed.is_empty() && self.ok > 0, "requests were lost: {self}");
        Ok(())
    }

    fn count(&mut self, answer: &str) {
        self.ok += 1;
        let (backend, client) = answer.trim_end().split_once(" from ").unwrap_or((answer.trim_end(), "?"));
        *self.by_backend.entry(backend.into()).or_default() += 1;
        *self.by_client.entry(client.into()).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        let Self { ok, failed, by_backend, by_client, lasted: _ } = other;
        self.ok += ok;
        self.failed.extend(failed);
        for (backend, count) in by_backend {
            *self.by_backend.entry(backend).or_default() += count;
        }
        for (client, count) in by_client {
            *self.by_client.entry(client).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ok, failed) = (self.ok, self.failed.len());
        write!(f, "{ok} answered, {failed} failed in {:.1?}; by backend {:?}", self.lasted, self.by_backend)?;
        for failure in self.failed.iter().take(10) {
            write!(f, "\n  at {:.3?} to {}: {}", failure.at, failure.target, failure.reason)?;
        }
        Ok(())
    }
}

/// One request over a connection of its own; the body of the answer.
fn request(target: SocketAddr) -> Result<String> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no whole answer within {REQUEST_TIMEOUT:?}");
        Ok(left)
    };
    let mut stream = TcpStream::connect_timeout(&target, REQUEST_TIMEOUT).context("connect")?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n").context("send")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer).context("receive")? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Result<String> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the connection closed after {} bytes of an answer", answer.len());
    };
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "the answer is {status:?}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if let Some(length) = length {
        ensure!(body.len() == length, "the answer has {} bytes of {length}", body.len());
    }
    Ok(body.into())
}
