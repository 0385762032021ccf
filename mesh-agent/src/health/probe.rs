//! **Effect.** One probe of a task.

use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use mesh_core::model::{Probe, Task};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::tls;
use crate::netns::Netns;

/// Asks once. `Err` says why it cannot serve. To be dropped when it takes too long.
pub(super) async fn probe(probe: &Probe, task: &Arc<Task>) -> Result<(), String> {
    match probe {
        Probe::Tcp { port } => connect(task, *port).await.map(drop),
        Probe::Http { port, path, tls } => {
            let stream = connect(task, *port).await?;
            let host = address(task)?;
            if *tls {
                get(tls::over(stream, host).await?, host, path).await
            } else {
                get(stream, host, path).await
            }
        }
        Probe::Shell { command } => run(command, Arc::clone(task)).await,
    }
}

/// A task serves all its networks by the same sockets.
fn address(task: &Task) -> Result<IpAddr, String> {
    let addresses = task.addresses.values().next();
    addresses.map(|own| own.v4.into()).ok_or_else(|| "the task has no address".to_owned())
}

async fn connect(task: &Task, port: u16) -> Result<TcpStream, String> {
    let to = SocketAddr::new(address(task)?, port);
    TcpStream::connect(to).await.map_err(|error| format!("{to}: {error}"))
}

/// One page over HTTP/1.1.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: IpAddr,
    path: &str,
) -> Result<(), String> {
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::get(path)
        .header(header::HOST, host.to_string())
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
    if (200..400).contains(&status.as_u16()) { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
}

/// A command in the task's network namespace. Whoever does not wait for it ends it.
async fn run(command: &str, task: Arc<Task>) -> Result<(), String> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
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
