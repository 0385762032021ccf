//! A client that begins flows, and who answers each.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::{Mesh, PORT};

/// Between two flows through the same node.
const EVERY: Duration = Duration::from_millis(2);
/// So late an answer is none.
const PATIENCE: Duration = Duration::from_millis(300);
/// Where the ports begin that flows come from. None is used again before its last flow is forgotten.
const FROM: u16 = 10_000;

/// One new flow.
pub(super) struct Flow {
    /// Through which node.
    pub(super) entry: usize,
    /// When.
    pub(super) sent: Instant,
    /// Which node's task answered; nobody did.
    pub(super) answer: Option<String>,
}

/// Flows that begin until told to stop.
pub(super) struct Flows {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Result<Vec<Flow>>>>>,
}

impl Flows {
    /// Through every node that is looked at.
    pub(super) fn begin(mesh: &Mesh) -> Result<Self> {
        let mut flows = Self { over: Arc::default(), threads: Vec::new() };
        for (entry, node) in mesh.entries().iter().enumerate() {
            let (over, to) = (Arc::clone(&flows.over), SocketAddrV4::new(node.address(), PORT));
            let send = move || send(entry, to, &over);
            flows.threads.push(mesh.lab.client().netns().thread("flows", send)?);
        }
        Ok(flows)
    }

    /// Stops, and tells what became of each.
    pub(super) fn end(self) -> Result<Vec<Flow>> {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| anyhow!("a thread that begins flows broke"))???);
        }
        Ok(all)
    }
}

/// For some time.
pub(super) fn send_for(mesh: &Mesh, time: Duration) -> Result<Vec<Flow>> {
    let flows = Flows::begin(mesh)?;
    thread::sleep(time);
    flows.end()
}

fn send(entry: usize, to: SocketAddrV4, over: &AtomicBool) -> Result<Vec<Flow>> {
    let (mut open, mut all) = (VecDeque::new(), Vec::new());
    while !over.load(Ordering::Relaxed) {
        let socket = fresh(to)?;
        let sent = Instant::now();
        socket.send(b"who").context("cannot send")?;
        open.push_back((sent, socket));
        while let Some((sent, socket)) = open.pop_front_if(|(sent, _)| sent.elapsed() >= PATIENCE) {
            all.push(Flow { entry, sent, answer: answer(&socket) });
        }
        thread::sleep(EVERY);
    }
    thread::sleep(PATIENCE);
    all.extend(open.into_iter().map(|(sent, socket)| Flow { entry, sent, answer: answer(&socket) }));
    Ok(all)
}

/// A socket with a port that none of them has had for long.
fn fresh(to: SocketAddrV4) -> Result<UdpSocket> {
    static NEXT: AtomicU16 = AtomicU16::new(FROM);
    loop {
        let step = |port: u16| Some(port.checked_add(1).unwrap_or(FROM));
        let port = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(FROM);
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                socket.connect(to).with_context(|| format!("connecting to {to} by UDP"))?;
                return Ok(socket);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).context("cannot open a socket"),
        }
    }
}

/// `n5 from 192.168.77.100` is that of n5.
fn answer(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 128];
    let read = socket.recv(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    text.split_whitespace().next().map(str::to_owned)
}
