//! **Effect.** What happens inside a task's network namespace: our sockets, and the rules that lead port 53 to
//! them.
//!
//! We do not listen on port 53 itself, for the task may be a DNS server that binds 0.0.0.0:53. Rules in the
//! output hook write our port over 53 on the way in and 53 over our port on the way back, so the task sees port
//! 53. They keep no state: NAT would turn on connection tracking for all of the task's traffic, which costs time
//! with each packet and drops packets when its table is full.
//!
//! A namespace is a property of a thread. Everything here runs on a thread of its own that ends afterwards, so
//! that no thread of the runtime is ever left in a wrong one.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use mesh_core::model::TaskId;
use nix::sched::{CloneFlags, setns};
use rustix::net::listen;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;

use super::SERVER;

/// The port that we listen on where it is free. A fixed one: a client that keeps its connected socket still finds
/// us after a restart of the agent.
const PORT: u16 = 20053;

/// Why a task cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The namespace's file is no namespace any more.
    #[error("cannot read which network namespace task {task} has: {source}; open it again")]
    Identity {
        /// Whose.
        task: TaskId,
        /// Why.
        source: io::Error,
    },
    /// No thread, or not allowed in.
    #[error(
        "cannot enter the network namespace of task {task}: {source}; the agent needs CAP_SYS_ADMIN and a free thread"
    )]
    Enter {
        /// Whose.
        task: TaskId,
        /// Why.
        source: io::Error,
    },
    /// No socket.
    #[error(
        "cannot listen on {SERVER} in the network namespace of task {task}: {source}; its loopback device must be up"
    )]
    Listen {
        /// Whose.
        task: TaskId,
        /// Why.
        source: io::Error,
    },
    /// No rules.
    #[error(
        "cannot lead port 53 of {SERVER} to us in the network namespace of task {task}: {why}; \
         nft must be installed and the kernel must have nf_tables"
    )]
    Redirect {
        /// Whose.
        task: TaskId,
        /// What nft said.
        why: String,
    },
}

/// A task's sockets, not yet known to the runtime.
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) ports: Ports,
    /// Whether the rules were set that lead to them.
    pub(super) is_led: bool,
}

/// Where they listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    udp: u16,
    tcp: u16,
}

impl Ports {
    pub(super) fn of(udp: &UdpSocket, tcp: &TcpListener) -> io::Result<Self> {
        Ok(Self { udp: udp.local_addr()?.port(), tcp: tcp.local_addr()?.port() })
    }
}

/// What waits while no agent reads: 2,700 questions, as the kernel counts them.
const WAITING: usize = 1 << 20;
/// Connections that wait.
const CONNECTIONS: i32 = 1024;

/// Room for a second of questions, which wait while the agent is restarted. Where that is refused, for whatever reason, fewer
/// can.
fn make_room(udp: &UdpSocket, tcp: &TcpListener) {
    let _ = set_socket_recv_buffer_size_force(udp, WAITING);
    let _ = listen(tcp, CONNECTIONS);
}

/// What tells one namespace from another: device and inode of its file.
pub(super) fn identity(task: &TaskId, netns: &File) -> Result<(u64, u64), DnsError> {
    let data = netns.metadata().map_err(|source| DnsError::Identity { task: task.clone(), source })?;
    Ok((data.dev(), data.ino()))
}

/// Opens the sockets and sets the rules, in one visit.
pub(super) async fn open(task: &TaskId, netns: &Arc<File>) -> Result<Sockets, DnsError> {
    let for_task = task.clone();
    visit(task, netns, move || {
        let failed = |source| DnsError::Listen { task: for_task.clone(), source };
        let udp = or_any_port(|port| UdpSocket::bind((SERVER, port))).map_err(failed)?;
        let tcp = or_any_port(|port| TcpListener::bind((SERVER, port))).map_err(failed)?;
        udp.set_nonblocking(true).and_then(|()| tcp.set_nonblocking(true)).map_err(failed)?;
        make_room(&udp, &tcp);
        let ports = Ports::of(&udp, &tcp).map_err(failed)?;
        nft(&rules(ports)).map_err(|why| DnsError::Redirect { task: for_task.clone(), why })?;
        Ok(Sockets { udp, tcp, ports, is_led: true })
    })
    .await
}

/// Sets the rules again, in one step, whether they are there or not.
pub(super) async fn redirect(task: &TaskId, netns: &Arc<File>, ports: Ports) -> Result<(), DnsError> {
    let for_task = task.clone();
    let set = move || nft(&rules(ports)).map_err(|why| DnsError::Redirect { task: for_task, why });
    visit(task, netns, set).await
}

/// Whether the rules are there as they were set, and no others in their table.
pub(super) async fn is_led(task: &TaskId, netns: &Arc<File>, ports: Ports) -> Result<bool, DnsError> {
    let for_task = task.clone();
    visit(task, netns, move || {
        let listed = Command::new("nft").args(["list", "table", "inet", "mesh_dns"]).output();
        let listed = listed.map_err(|error| DnsError::Redirect {
            task: for_task,
            why: format!("cannot run nft: {error}"),
        })?;
        // nft puts names of devices in quotes.
        let listed = String::from_utf8_lossy(&listed.stdout).replace('"', "");
        let listed = listed.lines().map(str::trim).filter(is_rule);
        Ok(listed.eq(rules(ports).lines().map(str::trim).filter(is_rule)))
    })
    .await
}

/// Takes the rules away.
pub(super) async fn clear(task: &TaskId, netns: &Arc<File>) -> Result<(), DnsError> {
    let for_task = task.clone();
    visit(task, netns, move || nft(CLEAR).map_err(|why| DnsError::Redirect { task: for_task, why })).await
}

/// The task may have our port; then any other will do.
fn or_any_port<T>(bind: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
    bind(PORT).or_else(|error| if error.kind() == io::ErrorKind::AddrInUse { bind(0) } else { Err(error) })
}

/// Adding before deleting makes the deletion succeed always; nft applies all of it or nothing.
const CLEAR: &str = "add table inet mesh_dns\ndelete table inet mesh_dns\n";

/// Whether a line of the table is a rule.
fn is_rule(line: &&str) -> bool {
    line.starts_with("oif ") || line.starts_with("ip ")
}

/// What leaves through another device costs one comparison. Before connection tracking (-200) and untracked, so
/// that rules of the task's own, or of Docker's resolver in the same namespace, come second.
fn rules(Ports { udp, tcp }: Ports) -> String {
    format!(
        "{CLEAR}table inet mesh_dns {{
            chain output {{
                type filter hook output priority -310; policy accept;
                oif != lo accept
                ip daddr {SERVER} udp dport 53 notrack udp dport set {udp}
                ip daddr {SERVER} tcp dport 53 notrack tcp dport set {tcp}
                ip saddr {SERVER} udp sport {udp} notrack udp sport set 53
                ip saddr {SERVER} tcp sport {tcp} notrack tcp sport set 53
            }}
        }}\n"
    )
}

/// Runs nft where the calling thread is.
fn nft(batch: &str) -> Result<(), String> {
    let run = || {
        let mut child = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(batch.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| format!("cannot run nft: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nft said: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A socket with a port of its own to ask an upstream from, in a namespace or in ours.
pub(super) async fn udp(
    netns: Option<&Arc<File>>,
    upstream: SocketAddr,
) -> io::Result<tokio::net::UdpSocket> {
    let any: IpAddr =
        if upstream.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = in_or_out(netns, move || UdpSocket::bind((any, 0))).await?;
    socket.set_nonblocking(true)?;
    tokio::net::UdpSocket::from_std(socket)
}

/// The same as a connection.
pub(super) async fn tcp(
    netns: Option<&Arc<File>>,
    upstream: SocketAddr,
) -> io::Result<tokio::net::TcpStream> {
    let open = move || Socket::new(Domain::for_address(upstream), Type::STREAM, None);
    let socket = in_or_out(netns, open).await?;
    socket.set_nonblocking(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(upstream).await
}

async fn in_or_out<T: Send + 'static>(
    netns: Option<&Arc<File>>,
    open: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match netns {
        None => open(),
        Some(netns) => enter(netns, open).await?,
    }
}

/// Runs something for a task inside its namespace.
async fn visit<T: Send + 'static>(
    task: &TaskId,
    netns: &Arc<File>,
    work: impl FnOnce() -> Result<T, DnsError> + Send + 'static,
) -> Result<T, DnsError> {
    let refuse = |source| DnsError::Enter { task: task.clone(), source };
    enter(netns, work).await.map_err(refuse)?
}

/// Runs something inside a namespace.
async fn enter<T: Send + 'static>(
    netns: &Arc<File>,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    let netns = Arc::clone(netns);
    let body = move || {
        let entered = setns(&*netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // The caller may have gone; then what was opened closes here.
        let _ = done.send(entered.map(|()| work()));
    };
    std::thread::Builder::new().name("dns-inside".to_owned()).spawn(body)?;
    result.await.unwrap_or_else(|_| Err(io::Error::other("the thread inside ended early")))
}
