//! **Effect.** Asks the world what is not ours: from the node's own namespace, or from that of a task that has name
//! servers of its own. What was answered is kept (`mesh_core::dns::cache`).
//!
//! Every question goes out from a fresh port under a random id, and only an answer that has both and repeats the
//! question counts. Equal questions at the same time are asked once: that saves work, gives a forger one try
//! instead of many, and ends loops. Where an upstream is a task that asks us in turn, its question is the one
//! that is already open, and waits for itself until the time is up.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use mesh_core::dns::cache::{Cache, name_end};
use mesh_core::dns::reply::is_truncated;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::probe::Probes;
use super::upstreams::may_ask;
use super::{DnsConfig, inside};

/// How long a probe may take to come back.
const PROBE: Duration = Duration::from_millis(250);
/// How long an upstream that asks us is left out.
const LEFT_OUT: Duration = Duration::from_secs(30);

/// A question in wire format with the id 0, and whether a cut answer is to be fetched over TCP.
type Key = (Vec<u8>, bool);
type Exchange = BoxFuture<'static, Option<Arc<[u8]>>>;

pub(super) struct Forwarder {
    asking: Arc<Asking>,
    open: Arc<Mutex<HashMap<Key, WeakShared<Exchange>>>>,
}

struct Asking {
    upstreams: ArcSwap<Vec<SocketAddr>>,
    /// The place of the upstream that answered last: a dead one costs its time once, not with each question.
    best: AtomicUsize,
    /// Those that ask us in turn, and until when that is believed of them.
    looping: Mutex<HashMap<SocketAddr, Instant>>,
    probes: Arc<Probes>,
    /// Where questions go out; none: in the node's own namespace.
    netns: Option<Arc<File>>,
    cache: Mutex<Cache>,
    each: Duration,
    all: Duration,
}

impl Forwarder {
    pub(super) fn new(
        config: &DnsConfig,
        upstreams: Vec<SocketAddr>,
        netns: Option<Arc<File>>,
        probes: Arc<Probes>,
    ) -> Self {
        let asking = Asking {
            upstreams: ArcSwap::default(),
            best: AtomicUsize::new(0),
            looping: Mutex::default(),
            probes,
            netns,
            cache: Mutex::new(Cache::new(config.cache)),
            each: config.upstream_timeout,
            all: config.forward_timeout,
        };
        let forwarder = Self { asking: Arc::new(asking), open: Arc::default() };
        forwarder.set_upstreams(upstreams);
        forwarder
    }

    pub(super) fn set_upstreams(&self, mut upstreams: Vec<SocketAddr>) {
        upstreams.retain(|upstream| may_ask(*upstream));
        if **self.asking.upstreams.load() != upstreams {
            self.asking.best.store(0, Relaxed);
            self.asking.upstreams.store(Arc::new(upstreams));
            self.asking.cache().clear();
        }
    }

    /// What an upstream has said before.
    pub(super) fn known(&self, question: &[u8]) -> Option<Vec<u8>> {
        self.asking.cache().get(question, Instant::now().into_std())
    }

    /// Asks, or waits for the answer to the same question. None: nobody answered.
    pub(super) async fn ask(&self, question: Vec<u8>, tcp: bool) -> Option<Arc<[u8]>> {
        self.share((question, tcp)).await
    }

    fn share(&self, key: Key) -> Shared<Exchange> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = open.get(&key).and_then(WeakShared::upgrade) {
            return running;
        }
        let closing = Closing { open: Arc::clone(&self.open), key: key.clone() };
        let asking = Arc::clone(&self.asking);
        let exchange = async move {
            let (question, tcp) = &closing.key;
            asking.ask(question, *tcp).await
        };
        let exchange = exchange.boxed().shared();
        if let Some(weak) = exchange.downgrade() {
            open.insert(key, weak);
        }
        exchange
    }
}

/// Forgets a question when it is answered, or when nobody waits any more.
struct Closing {
    open: Arc<Mutex<HashMap<Key, WeakShared<Exchange>>>>,
    key: Key,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Asking {
    /// Asks one upstream after the other: two tries where there is one, three at most. One that says that it
    /// cannot (RFC 1035 §4.1.1: server failure, refused) is believed only if no other can.
    async fn ask(&self, question: &[u8], tcp: bool) -> Option<Arc<[u8]>> {
        let upstreams = self.upstreams.load_full();
        let count = upstreams.len();
        let tries = if count == 1 { 2 } else { count.min(3) };
        let deadline = Instant::now() + self.all;
        let mut excuse = None;
        let first = self.best.load(Relaxed);
        for place in (first..).take(tries) {
            if place >= first + count && excuse.is_some() || Instant::now() >= deadline {
                break;
            }
            let place = place % count;
            let upstream = *upstreams.get(place)?;
            let until = deadline.min(Instant::now() + self.each);
            let next = || self.best.compare_exchange(place, (place + 1) % count, Relaxed, Relaxed);
            if self.loops(upstream) {
                let _ = next();
                continue;
            }
            match timeout_at(until, self.exchange(upstream, question, tcp)).await {
                Ok(Ok(answer)) if matches!(answer.get(3).map(|flags| flags & 0xf), Some(2 | 5)) => {
                    excuse.get_or_insert(answer);
                }
                Ok(Ok(answer)) => {
                    self.best.store(place, Relaxed);
                    self.cache().keep(question, &answer, Instant::now().into_std());
                    return Some(answer.into());
                }
                Ok(Err(_)) => drop(next()),
                Err(_) => {
                    let _ = next();
                    self.probe(upstream).await;
                }
            }
        }
        excuse.map(Arc::from)
    }

    /// An upstream that is silent may be waiting for us.
    async fn probe(&self, upstream: SocketAddr) {
        let Some(probe) = self.probes.begin() else { return };
        let question = probe.question();
        let came_back = async {
            tokio::select! {
                () = probe.back() => true,
                // An answer ends it, too; who answers may still have asked us for it.
                _ = self.exchange(upstream, &question, false) => false,
            }
        };
        if timeout(PROBE, came_back).await == Ok(true) {
            tracing::warn!(%upstream, "a name server asks us what we ask it, and is left out for {LEFT_OUT:?}");
            lock(&self.looping).insert(upstream, Instant::now() + LEFT_OUT);
        }
    }

    fn loops(&self, upstream: SocketAddr) -> bool {
        let mut looping = lock(&self.looping);
        looping.retain(|_, until| Instant::now() < *until);
        looping.contains_key(&upstream)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        lock(&self.cache)
    }

    /// One try. The answer comes back with the id 0.
    async fn exchange(&self, upstream: SocketAddr, question: &[u8], tcp: bool) -> io::Result<Vec<u8>> {
        let mut id = [0; 2];
        getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
        let mut packet = question.to_vec();
        packet[..2].copy_from_slice(&id);
        let mut answer = self.over_udp(upstream, &packet).await?;
        // Over UDP the asker's limit was the upstream's: what did not fit here does not fit there.
        if tcp && is_truncated(&answer) {
            answer = self.over_tcp(upstream, &packet).await?;
        }
        answer[..2].fill(0);
        Ok(answer)
    }

    async fn over_udp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let socket = inside::udp(self.netns.as_ref(), upstream).await?;
        // Connected: the kernel drops what others send, and reports that nobody listens.
        socket.connect(upstream).await?;
        socket.send(packet).await?;
        // More than we ever allow an upstream to send.
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            if length < buffer.len() && answers(&buffer[..length], packet) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    async fn over_tcp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = inside::tcp(self.netns.as_ref(), upstream).await?;
        let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), packet].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        if answers(&answer, packet) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a packet is a reply to this question. A reply that only says that it cannot may leave the question
/// out, as some servers do.
fn answers(reply: &[u8], packet: &[u8]) -> bool {
    let (Some(header), Some(asked)) = (reply.first_chunk::<12>(), packet.first_chunk::<12>()) else {
        return false;
    };
    if header[..2] != asked[..2] || header[2] & 0x80 == 0 || header[2] & 0x78 != asked[2] & 0x78 {
        return false;
    }
    if header[4..6] == [0, 0] {
        return header[3] & 0xf != 0 && header[6..8] == [0, 0];
    }
    // Type and class follow the name, which is not compressed: there is nothing before it to point to.
    let Some(end) = name_end(packet, 12).map(|end| end + 4) else {
        return false;
    };
    let (Some(theirs), Some(ours)) = (reply.get(12..end), packet.get(12..end)) else {
        return false;
    };
    header[4..6] == [0, 1] && theirs.eq_ignore_ascii_case(ours)
}
