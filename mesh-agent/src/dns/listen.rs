//! **Effect.** Reads one task's questions from its sockets and writes the replies, within bounds: what one task does
//! costs the other tasks nothing.
//!
//! Not `hickory_server::Server`, whose loops write a log line per query and take any number of connections.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use mesh_core::dns::reply::{self, Asked, Manner, Outcome, Verdict};
use mesh_core::dns::{Zone, quick, whose};
use mesh_core::model::{NetworkId, TaskId};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::count::{Count, Counts};
use super::forward::Forwarder;
use super::inside::{Ports, Sockets};
use super::probe::Probes;
use super::referrals::Referrals;
use super::thread::Thread;
use super::{DnsConfig, DnsError, datagrams};

/// No question is longer; what is longer is no question.
pub(super) const LONGEST_QUESTION: usize = 4096;
/// After an error of a socket, which concerns the moment and not the socket: never a busy loop.
const PAUSE: Duration = Duration::from_millis(20);
/// Once no more questions are taken, whoever has a connection and asks nothing for so long is not about to.
const SILENT: Duration = Duration::from_millis(100);

/// What all tasks' listeners share.
pub(super) struct Office {
    thread: Thread,
    config: DnsConfig,
    manner: Manner,
    zone: Arc<ArcSwap<Zone>>,
    room: Arc<Semaphore>,
    probes: Arc<Probes>,
    pub(super) forwarder: Forwarder,
    pub(super) counts: Counts,
    pub(super) referrals: Referrals,
}

impl Office {
    pub(super) fn new(config: DnsConfig, zone: Arc<ArcSwap<Zone>>) -> io::Result<Self> {
        let ttl = u32::try_from(config.ttl.as_secs()).unwrap_or(u32::MAX);
        let probes = Arc::<Probes>::default();
        Ok(Self {
            thread: Thread::start()?,
            manner: Manner { ttl, udp_limit: config.udp_limit },
            zone,
            room: Arc::new(Semaphore::new(config.max_forwards)),
            forwarder: Forwarder::new(&config, config.upstreams.clone(), None, Arc::clone(&probes)),
            probes,
            counts: Counts::default(),
            referrals: Referrals::new(config.ttl),
            config,
        })
    }
}

/// One task's listener. Dropped, it closes its sockets; [`Listener::stop`] also waits until they are.
pub(super) struct Listener {
    desk: Arc<Desk>,
    udp: Arc<AsyncFd<UdpSocket>>,
    tcp: Arc<TcpListener>,
    netns: Arc<File>,
    namespace: (u64, u64),
    ports: Ports,
    /// Whether the rules that lead there were set.
    is_led: AtomicBool,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Listener {
    pub(super) fn start(
        office: &Arc<Office>,
        task: &TaskId,
        sockets: Sockets,
        netns: Arc<File>,
        namespace: (u64, u64),
        networks: Vec<NetworkId>,
        upstreams: Vec<SocketAddr>,
    ) -> Result<Self, DnsError> {
        let adopt = |source| DnsError::Listen { task: task.clone(), source };
        let entered = office.thread.enter();
        let udp = Arc::new(datagrams::watch(sockets.udp).map_err(adopt)?);
        let tcp = Arc::new(TcpListener::from_std(sockets.tcp).map_err(adopt)?);
        drop(entered);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let own = (!upstreams.is_empty()).then(|| {
            let place = Some(Arc::clone(&netns));
            Forwarder::new(&office.config, upstreams, place, Arc::clone(&office.probes))
        });
        let desk = Arc::new(Desk {
            office: Arc::clone(office),
            own,
            // Only fairness hangs on it.
            seed: AtomicU64::new(getrandom::u64().unwrap_or_default()),
            networks: ArcSwap::from_pointee(networks),
            room: Arc::new(Semaphore::new(office.config.max_forwards_per_task)),
            tasks: tasks.clone(),
            stop: stop.clone(),
            closed: CancellationToken::new(),
        });
        desk.spawn(Arc::clone(&desk).read_datagrams(Arc::clone(&udp)));
        desk.spawn(Arc::clone(&desk).accept(Arc::clone(&tcp)));
        tasks.close();
        let Sockets { ports, is_led, .. } = sockets;
        let (is_led, stop) = (is_led.into(), stop.drop_guard());
        Ok(Self { desk, udp, tcp, netns, namespace, ports, is_led, tasks, stop })
    }

    /// The identity of its namespace.
    pub(super) fn namespace(&self) -> (u64, u64) {
        self.namespace
    }

    /// Where it listens: the namespace and the ports in it.
    pub(super) fn place(&self) -> (Arc<File>, Ports) {
        (Arc::clone(&self.netns), self.ports)
    }

    /// Whether it is in this namespace; then it takes over the networks.
    pub(super) fn serves(&self, namespace: (u64, u64), networks: &[NetworkId]) -> bool {
        let is_there = self.namespace == namespace;
        if is_there {
            self.desk.networks.store(Arc::new(networks.to_vec()));
        }
        is_there
    }

    /// Whether the rules were set that lead there, or may be those of an agent before.
    pub(super) fn is_led(&self) -> bool {
        self.is_led.load(Relaxed)
    }

    /// The rules were set.
    pub(super) fn set_led(&self) {
        self.is_led.store(true, Relaxed);
    }

    /// Copies of its sockets.
    pub(super) fn sockets(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.udp.get_ref().as_fd().try_clone_to_owned()?, self.tcp.as_fd().try_clone_to_owned()?])
    }

    /// Takes no more questions. Those that it has are answered until [`Listener::stop`]; ready when they are.
    pub(super) fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        self.desk.closed.cancel();
        let tasks = self.tasks.clone();
        async move { tasks.wait().await }
    }

    /// Ends all its tasks and returns the namespace where it was.
    pub(super) async fn stop(self) -> Arc<File> {
        let Self { netns, tasks, stop, .. } = self;
        drop(stop);
        tasks.wait().await;
        netns
    }
}

/// What the tasks of one listener share.
struct Desk {
    office: Arc<Office>,
    /// Asks the task's own name servers, where it has some.
    own: Option<Forwarder>,
    /// What the next answer is shuffled by.
    seed: AtomicU64,
    networks: ArcSwap<Vec<NetworkId>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// From now on questions are left to whoever reads the sockets next.
    closed: CancellationToken,
}

impl Desk {
    /// Runs something until it or the listener ends.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.office.thread.spawn(&self.tasks, async move {
            stop.run_until_cancelled_owned(work).await;
        });
    }

    async fn read_datagrams(self: Arc<Self>, socket: Arc<AsyncFd<UdpSocket>>) {
        let read = async {
            loop {
                match socket.async_io(Interest::READABLE, |_| self.answer_datagrams(&socket)).await {
                    // There may be more; others have their turns first.
                    Ok(()) => yield_now().await,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        };
        self.closed.run_until_cancelled(read).await;
    }

    /// Answers what has come, and has others ask the world.
    fn answer_datagrams(self: &Arc<Self>, socket: &Arc<AsyncFd<UdpSocket>>) -> io::Result<()> {
        let (zone, networks) = (self.office.zone.load(), self.networks.load());
        datagrams::turn(socket.get_ref(), |packet, from, reply| {
            let seed = self.seed();
            if let Some(outcome) = quick::answer(packet, self.office.manner, &zone, &networks, seed, reply) {
                self.refer(packet, outcome, &zone, &networks);
                return self.office.counts.add(outcome.into());
            }
            let answer = match reply::decide(packet, false, self.office.manner, &zone, &networks, seed) {
                Verdict::Ignore => None,
                Verdict::Reply(bytes, outcome) => {
                    self.refer(packet, outcome, &zone, &networks);
                    Some((bytes, outcome.into()))
                }
                Verdict::Forward(asked) => match (self.known(&asked), self.take_room()) {
                    (Some(known), _) => Some(known),
                    (None, None) => refused(&asked),
                    (None, Some(room)) => {
                        let (desk, socket) = (Arc::clone(self), Arc::clone(socket));
                        self.spawn(async move {
                            let reply = desk.forward(&asked).await;
                            desk.send(socket.get_ref(), from, reply);
                            drop(room);
                        });
                        None
                    }
                },
            };
            if let Some((bytes, count)) = answer {
                self.count(&bytes, count);
                *reply = bytes;
            }
        })
    }

    /// Notes whose tasks a client was sent to, past any VIP.
    fn refer(&self, packet: &[u8], outcome: Outcome, zone: &Zone, networks: &[NetworkId]) {
        if matches!(outcome, Outcome::Addresses | Outcome::Targets)
            && let Some(service) = whose::tasks_of(packet, zone, networks)
        {
            self.office.referrals.note(service);
        }
    }

    /// Sends and counts. A datagram that cannot be sent is lost like any other.
    fn send(&self, socket: &UdpSocket, to: SocketAddr, reply: Option<(Vec<u8>, Count)>) {
        if let Some((bytes, count)) = reply {
            self.count(&bytes, count);
            let _ = socket.send_to(&bytes, to);
        }
    }

    /// Takes connections while there is room; others wait in the kernel's queue until one has been idle for too
    /// long.
    async fn accept(self: Arc<Self>, listener: Arc<TcpListener>) {
        let places = Arc::new(Semaphore::new(self.office.config.max_connections_per_task));
        let take = async {
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let Ok((stream, _)) = listener.accept().await else {
                    sleep(PAUSE).await;
                    continue;
                };
                let desk = Arc::clone(&self);
                self.spawn(async move {
                    desk.converse(stream).await;
                    drop(place);
                });
            }
        };
        self.closed.run_until_cancelled(take).await;
    }

    /// One question after the other (RFC 7766), each prefixed by its length, until the client ends or errs.
    async fn converse(&self, mut stream: TcpStream) {
        let idle = self.office.config.idle_timeout;
        let mut question = Vec::new();
        loop {
            let read = async {
                let length = usize::from(stream.read_u16().await?);
                question.resize(length.min(LONGEST_QUESTION + 1), 0);
                stream.read_exact(&mut question).await
            };
            let silent = async {
                self.closed.cancelled().await;
                sleep(SILENT).await;
            };
            let length = tokio::select! {
                biased;
                read = timeout(idle, read) => match read {
                    Ok(Ok(length)) => length,
                    Ok(Err(_)) | Err(_) => return,
                },
                () = silent => return,
            };
            if length > LONGEST_QUESTION {
                return;
            }
            let reply = match self.consider(&question, true) {
                Verdict::Ignore => None,
                Verdict::Reply(bytes, outcome) => Some((bytes, outcome.into())),
                Verdict::Forward(asked) => match (self.known(&asked), self.take_room()) {
                    (Some(known), _) => Some(known),
                    (None, None) => refused(&asked),
                    (None, Some(_room)) => self.forward(&asked).await,
                },
            };
            let Some((mut bytes, count)) = reply else { return };
            let Ok(length) = u16::try_from(bytes.len()) else {
                return;
            };
            self.count(&bytes, count);
            bytes.splice(..0, length.to_be_bytes());
            if !matches!(timeout(idle, stream.write_all(&bytes)).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn consider(&self, packet: &[u8], tcp: bool) -> Verdict {
        let (zone, networks) = (self.office.zone.load(), self.networks.load());
        let verdict = reply::decide(packet, tcp, self.office.manner, &zone, &networks, self.seed());
        if let Verdict::Reply(_, outcome) = &verdict {
            self.refer(packet, *outcome, &zone, &networks);
        }
        verdict
    }

    fn seed(&self) -> u64 {
        self.seed.fetch_add(1, Relaxed)
    }

    fn forwarder(&self) -> &Forwarder {
        self.own.as_ref().unwrap_or(&self.office.forwarder)
    }

    /// What can be said at once to a question for the world.
    fn known(&self, asked: &Asked) -> Option<(Vec<u8>, Count)> {
        if self.office.probes.came_back(&asked.name()) {
            return Some((asked.error(ResponseCode::ServFail)?, Count::Failed));
        }
        let answer = self.forwarder().known(&asked.upstream()?)?;
        self.office.counts.add(Count::Cached);
        Some((asked.passed_on(&answer)?, Count::Forwarded))
    }

    fn take_room(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let mine = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some((mine, Arc::clone(&self.office.room).try_acquire_owned().ok()?))
    }

    async fn forward(&self, asked: &Asked) -> Option<(Vec<u8>, Count)> {
        let answer = match asked.upstream() {
            Some(question) => self.forwarder().ask(question, asked.tcp()).await,
            None => None,
        };
        match answer {
            Some(answer) => Some((asked.passed_on(&answer)?, Count::Forwarded)),
            None => Some((asked.error(ResponseCode::ServFail)?, Count::Failed)),
        }
    }

    fn count(&self, reply: &[u8], count: Count) {
        self.office.counts.add(count);
        if reply::is_truncated(reply) {
            self.office.counts.add(Count::Truncated);
        }
    }
}

fn refused(asked: &Asked) -> Option<(Vec<u8>, Count)> {
    Some((asked.error(ResponseCode::Refused)?, Count::Refused))
}
