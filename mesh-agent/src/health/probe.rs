//! **Effect.** One probe of a task.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use mesh_core::health::History;
use mesh_core::model::{Probe, Task};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

use super::tls;
use crate::netns::Netns;

/// When another address is tried beside one that does not answer (RFC 8305, "Connection Attempt Delay").
const NEXT: Duration = Duration::from_millis(250);

/// What a task answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Why it cannot serve; none: it can.
    pub(super) failure: Option<String>,
    /// Of a command its own; else 0 for success and 1 for failure.
    pub(super) exit_code: i32,
    /// What a command printed; else a status or what went wrong.
    pub(super) output: String,
}

impl Answer {
    /// That it cannot serve, or cannot be asked.
    pub(super) fn failed(why: String) -> Self {
        Self { failure: Some(why.clone()), exit_code: 1, output: why }
    }
}

/// Asks once. To be dropped when it takes too long.
pub(super) async fn probe(probe: &Probe, task: &Arc<Task>) -> Answer {
    let asked = async {
        match probe {
            Probe::Tcp { port } => {
                connect(task, *port).await?;
                Ok(Answer { failure: None, exit_code: 0, output: String::new() })
            }
            Probe::Http { port, path, tls } => {
                let (stream, host) = connect(task, *port).await?;
                let output = if *tls {
                    get(tls::over(stream, host).await?, host, path).await?
                } else {
                    get(stream, host, path).await?
                };
                Ok(Answer { failure: None, exit_code: 0, output })
            }
            Probe::Shell { command } => run(command, Arc::clone(task)).await,
        }
    };
    asked.await.unwrap_or_else(Answer::failed)
}

/// A connection to a task at the first of its addresses that takes it: it may listen on one of them only.
async fn connect(task: &Task, port: u16) -> Result<(TcpStream, IpAddr), String> {
    let addresses = || task.addresses.values();
    let v4 = addresses().map(|own| IpAddr::V4(own.v4));
    let mut left: Vec<_> = v4.chain(addresses().filter_map(|own| own.v6.map(IpAddr::V6))).collect();
    left.reverse();
    let mut attempts = FuturesUnordered::new();
    let mut failures: Vec<String> = Vec::new();
    loop {
        match left.pop() {
            Some(address) => attempts.push(async move {
                let to = SocketAddr::new(address, port);
                let stream = TcpStream::connect(to).await.map_err(|error| format!("{to}: {error}"))?;
                Ok((stream, address))
            }),
            None if attempts.is_empty() && failures.is_empty() => {
                return Err("the task has no address".to_owned());
            }
            None if attempts.is_empty() => return Err(failures.join(", ")),
            None => {}
        }
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(connected) => return Ok(connected),
                Err(why) => failures.push(why),
            },
            () = tokio::time::sleep(NEXT), if !left.is_empty() => {}
        }
    }
}

/// One page over HTTP/1.1.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: IpAddr,
    path: &str,
) -> Result<String, String> {
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(path)
        .header(header::HOST, if host.is_ipv6() { format!("[{host}]") } else { host.to_string() })
        .header(header::USER_AGENT, "mesh-health")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    // The connection ends when this does.
    let status = tokio::select! {
        response = sender.send_request(request) => response.map_err(failed)?.status(),
        ended = connection => {
            ended.map_err(failed)?;
            return Err("it ended the connection without an answer".to_owned());
        }
    };
    let output = format!("status {}", status.as_u16());
    if (200..400).contains(&status.as_u16()) { Ok(output) } else { Err(output) }
}

/// A command in the task's network namespace. Whoever does not wait for it ends it.
async fn run(command: &str, task: Arc<Task>) -> Result<Answer, String> {
    let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let errors = writer.try_clone().map_err(|error| error.to_string())?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(writer).stderr(errors);
    shell.process_group(0).kill_on_drop(true);
    let runtime = tokio::runtime::Handle::current();
    let spawned = tokio::task::spawn_blocking(move || {
        let netns = Netns::of_origin(&task.origin).map_err(|error| error.to_string())?;
        let spawn = || {
            let _entered = runtime.enter();
            shell.spawn()
        };
        let child = netns.run(spawn).map_err(|error| error.to_string())?;
        child.map_err(|error| format!("/bin/sh cannot be started: {error}"))
    });
    let mut child = spawned.await.map_err(|error| error.to_string())??;
    let _group = child.id().and_then(Group::of);
    let mut output = Output::of(reader).map_err(|error| error.to_string())?;
    let status = tokio::select! {
        status = child.wait() => status.map_err(|error| error.to_string())?,
        never = output.read() => match never {},
    };
    // What it has started may have the pipe open for ever.
    let _ = tokio::time::timeout(LAST_WORDS, output.rest()).await;
    let exit_code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    let failure = (!status.success()).then(|| status.to_string());
    Ok(Answer { failure, exit_code, output: String::from_utf8_lossy(&output.kept).into_owned() })
}

/// How long what a command printed last may take to arrive when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What a command prints. All is read, so that it is not held up, and its beginning kept.
struct Output {
    pipe: Receiver,
    kept: Vec<u8>,
    ended: bool,
}

impl Output {
    fn of(reader: std::io::PipeReader) -> std::io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(reader.into())?, kept: Vec::new(), ended: false })
    }

    /// Reads until there is no more.
    async fn rest(&mut self) {
        let mut buffer = [0; 1024];
        while !self.ended {
            match self.pipe.read(&mut buffer).await {
                Ok(0) | Err(_) => self.ended = true,
                Ok(read) => {
                    let room = History::OUTPUT.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..read.min(room)]);
                }
            }
        }
    }

    /// Reads for as long as somebody waits.
    async fn read(&mut self) -> Infallible {
        self.rest().await;
        std::future::pending().await
    }
}

/// All that a command has started, too, ends with it.
struct Group(nix::unistd::Pid);

impl Group {
    fn of(leader: u32) -> Option<Self> {
        leader.try_into().ok().map(nix::unistd::Pid::from_raw).map(Self)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // None is left, as a rule.
        let _ = nix::sys::signal::killpg(self.0, nix::sys::signal::Signal::SIGKILL);
    }
}
