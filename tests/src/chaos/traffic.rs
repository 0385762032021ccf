//! **Effect.** Clients that ask all the time, and write down what came of it.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Failed, Kept, Millis, Place, Request};
use crate::Netns;

/// How long a request may take: longer than a lost SYN and the next one.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many of each place ask over new connections.
const NEW: u32 = 3;
/// Between two questions of one of them.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a connection is kept: longer than any fault, and shorter than what a task that goes waits for its clients
/// (`--drain-timeout`, 30 s). Whoever keeps one for longer is cut off, and that is promised.
const KEEP: Duration = Duration::from_secs(15);

/// Somewhere to ask from.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) netns: Netns,
    pub(super) entry: Place,
    pub(super) inside: bool,
    /// Where each service is found.
    pub(super) targets: Vec<SocketAddr>,
}

/// Traffic that runs until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

impl Traffic {
    /// Every client asks every service over new connections, and over one that it keeps. `start` is the beginning of
    /// the run.
    pub(super) fn start(clients: &[Client], start: Instant) -> Result<Self> {
        let shared = Arc::new(Shared { start, stop: AtomicBool::default(), requests: Mutex::default() });
        let mut traffic = Self { shared, threads: Vec::new() };
        for client in clients {
            for number in 0..NEW {
                let (shared, client) = (Arc::clone(&traffic.shared), client.clone());
                let first = PAUSE * number / NEW;
                let netns = client.netns.clone();
                traffic.threads.push(netns.thread("new", move || shared.ask_anew(&client, first))?);
            }
            for service in 0..client.targets.len() {
                let (shared, client) = (Arc::clone(&traffic.shared), client.clone());
                let netns = client.netns.clone();
                traffic.threads.push(netns.thread("kept", move || shared.ask_again(&client, service))?);
            }
        }
        Ok(traffic)
    }

    /// How many requests there were.
    pub(super) fn count(&self) -> usize {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends it and tells all.
    pub(super) fn stop(mut self) -> Result<Vec<Request>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let Ok(ended) = thread.join() else { bail!("a client panicked") };
            ended?;
        }
        let mut requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut requests))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn now(&self) -> Millis {
        self.start.elapsed().as_millis() as Millis
    }

    /// Asks the services in turn.
    fn ask_anew(&self, client: &Client, first: Duration) {
        thread::sleep(first);
        for (service, target) in client.targets.iter().enumerate().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let begun = Instant::now();
            let _ = self.ask(client, service, *target, None);
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        }
    }

    /// Asks one service over one connection for as long as that works and it is kept.
    fn ask_again(&self, client: &Client, service: usize) {
        let Some(target) = client.targets.get(service) else { return };
        let mut open = None;
        while !self.stop.load(Ordering::Relaxed) {
            open = self.ask(client, service, *target, open);
            thread::sleep(PAUSE * 3);
            open = open.filter(|open| self.now() - open.opened < KEEP.as_millis() as Millis);
        }
    }

    /// Asks over a connection, or a new one; the connection if it is still of use.
    fn ask(
        &self,
        client: &Client,
        service: usize,
        target: SocketAddr,
        open: Option<Connection>,
    ) -> Option<Connection> {
        let at = self.now();
        let begun = Instant::now();
        let kept = open.as_ref().map(|open| Kept { by: open.by });
        let connection = match open {
            Some(open) => Ok(open),
            None => Connection::open(target, at),
        };
        let connect = kept.is_none().then(|| begun.elapsed().as_millis() as Millis);
        let opened = connection.as_ref().map_or(at, |connection| connection.opened);
        let asked = connection.and_then(|mut connection| {
            connection.by = connection.ask(begun + PATIENCE)?;
            Ok(connection)
        });
        let took = begun.elapsed().as_millis() as Millis;
        let (outcome, connection) = match asked {
            Ok(connection) => (Ok(connection.by), Some(connection)),
            Err(failed) => (Err(failed), None),
        };
        let Client { entry, inside, .. } = *client;
        let request = Request { opened, at, took, connect, entry, inside, service, kept, outcome };
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        connection
    }
}

/// A connection to a task.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    opened: Millis,
    by: Place,
}

impl Connection {
    fn open(target: SocketAddr, opened: Millis) -> Result<Self, Failed> {
        let stream = TcpStream::connect_timeout(&target, PATIENCE).map_err(|error| failed(&error))?;
        Ok(Self { stream, opened, by: 0 })
    }

    /// The node of the task that answers.
    fn ask(&mut self, deadline: Instant) -> Result<Place, Failed> {
        let broken = |error: std::io::Error| failed(&error);
        self.stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").map_err(broken)?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        // The body is one line, and its end is the only one that no carriage return precedes.
        while !answer.ends_with(b"\n") || answer.ends_with(b"\r\n") {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failed::Silence);
            }
            self.stream.set_read_timeout(Some(left)).map_err(broken)?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Failed::Refused("the connection was closed".into())),
                Ok(read) => answer.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        let text = String::from_utf8_lossy(&answer);
        let name = text.lines().last().unwrap_or_default();
        node_of(name).ok_or_else(|| Failed::Refused(format!("an answer that nobody gives: {name}")))
    }
}

/// What the server of a task on a node is called; it says so in its answers.
pub(super) fn server_name(node: Place) -> String {
    format!("node-{node}")
}

fn node_of(answer: &str) -> Option<Place> {
    answer.strip_prefix("node-")?.split(' ').next()?.parse().ok()
}

fn failed(error: &std::io::Error) -> Failed {
    match error.kind() {
        // Silence is told by neighbours, too: nobody answers to the address.
        ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => Failed::Silence,
        _ => Failed::Refused(error.to_string()),
    }
}
