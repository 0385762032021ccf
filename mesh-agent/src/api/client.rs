//! **Effect.** The way from the command line to the agent.
//!
//! One connection per request: a command makes few, and a kept connection would have to survive the agent's
//! restart. What the agent says is passed on as it is.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::types::{ErrorBody, ErrorKind};

/// Where the agent is unless said otherwise.
pub const DEFAULT_HOST: &str = "unix:///run/mesh/mesh.sock";
/// Longer than any answer takes: a change is tried for a few seconds, a task is attached within a few.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// A socket on this machine.
    Unix(PathBuf),
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err(format!("'{text}' needs an absolute path: unix:///run/mesh/mesh.sock")),
            Some((scheme, _)) => {
                Err(format!("'{scheme}' is not supported: the agent listens on unix:///PATH"))
            }
            None => Err(format!("'{text}' is no address of an agent: unix:///run/mesh/mesh.sock is one")),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The agent cannot be reached.
    #[error("cannot connect to the mesh agent at {host}: {why}")]
    Unreachable {
        /// Where.
        host: Host,
        /// Why, and what to do.
        why: String,
    },
    /// The agent said no.
    #[error("{message}")]
    Refused {
        /// What it said.
        message: String,
        /// The kind of it.
        kind: ErrorKind,
    },
    /// The connection broke, or the answer makes no sense.
    #[error("the mesh agent at {host} gave no usable answer: {why}")]
    Broken {
        /// Where.
        host: Host,
        /// What happened.
        why: String,
    },
}

impl ClientError {
    /// Whether the same request may succeed a little later: the agent is being restarted, or the store is away.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { kind, .. } => *kind == ErrorKind::Unavailable,
            Self::Unreachable { .. } | Self::Broken { .. } => true,
        }
    }
}

/// A way to one agent.
#[derive(Debug, Clone)]
pub struct Client {
    host: Host,
}

impl Client {
    /// Connects only when something is asked.
    pub fn new(host: Host) -> Self {
        Self { host }
    }

    /// Where the agent is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The process that listens there, if it is known.
    pub async fn peer(&self) -> Option<u32> {
        let pid = self.connect().await.ok()?.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok()
    }

    /// Reads.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, None::<&()>).await
    }

    /// Makes.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.request(Method::POST, path, Some(body)).await
    }

    /// Changes.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.request(Method::PATCH, path, Some(body)).await
    }

    /// Removes.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::DELETE, path, None::<&()>).await
    }

    /// Reads lines for as long as they come. `began` is called when the agent has agreed, `each` with each line, until
    /// it says that it has seen enough: then the answer is true. False: the agent ended.
    pub async fn lines(
        &self,
        path: &str,
        began: impl FnOnce(),
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<bool, ClientError> {
        let broken = |why: String| ClientError::Broken { host: self.host.clone(), why };
        let request = Request::builder().uri(path).header("host", "mesh").body(Full::new(Bytes::new()));
        let request = request.map_err(|error| broken(error.to_string()))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(self.connect().await?)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(error.to_string()))?;
        let read = async move {
            let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
            let (status, mut body) = (response.status(), response.into_body());
            if !status.is_success() {
                let bytes = body.collect().await.map_err(|error| broken(error.to_string()))?.to_bytes();
                return Err(match serde_json::from_slice::<ErrorBody>(&bytes) {
                    Ok(ErrorBody { message, kind }) => ClientError::Refused { message, kind },
                    Err(_) => broken(format!("{status}: {}", String::from_utf8_lossy(&bytes))),
                });
            }
            began();
            let mut rest = Vec::new();
            // An agent that is killed breaks off; that is an end as well.
            while let Some(Ok(frame)) = body.frame().await {
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    if !each(String::from_utf8_lossy(&line).trim_end()) {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        };
        tokio::pin!(connection, read);
        tokio::select! {
            read = &mut read => read,
            _ = &mut connection => read.await,
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let broken = |why: String| ClientError::Broken { host: self.host.clone(), why };
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| broken(error.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "mesh")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|error| broken(error.to_string()))?;
        let stream = self.connect().await?;
        let exchange = exchange(stream, request);
        let (status, bytes) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| broken(format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(|error| broken(error.to_string()))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()));
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(ErrorBody { message, kind }) => Err(ClientError::Refused { message, kind }),
            Err(_) => Err(broken(format!("{status}: {}", String::from_utf8_lossy(&bytes)))),
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let Host::Unix(path) = &self.host;
        UnixStream::connect(path).await.map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "no such file. Is the agent running?".to_owned(),
                io::ErrorKind::ConnectionRefused => "connection refused. Is the agent running?".to_owned(),
                io::ErrorKind::PermissionDenied => format!("permission denied. {}", who_may(path)),
                _ => error.to_string(),
            };
            ClientError::Unreachable { host: self.host.clone(), why }
        })
    }
}

/// Sends a request and reads the whole answer. The connection is driven here, beside the exchange, so that no
/// task is left behind.
async fn exchange(stream: UnixStream, request: Request<Full<Bytes>>) -> hyper::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((status, bytes))
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            // The connection may end before its last answer was looked at.
            ended?;
            answer.await
        }
    }
}

fn who_may(path: &Path) -> String {
    let Ok(found) = std::fs::metadata(path) else {
        return "Only root may look at it; try sudo.".to_owned();
    };
    let gid = nix::unistd::Gid::from_raw(found.gid());
    if gid.as_raw() == 0 {
        return "It is root's; try sudo, or have the agent open it to a group.".to_owned();
    }
    match nix::unistd::Group::from_gid(gid).ok().flatten() {
        Some(group) => format!(
            "It is open to members of group '{0}': join it (usermod -aG {0} $USER, then log in again) or try sudo.",
            group.name
        ),
        None => format!("It is open to members of group {gid}; try sudo."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_and_written() {
        let host: Host = DEFAULT_HOST.parse().unwrap();
        assert_eq!(host.to_string(), DEFAULT_HOST);
        for (text, why) in
            [("/run/x", "no address"), ("tcp://h:1", "not supported"), ("unix://x", "absolute")]
        {
            assert!(text.parse::<Host>().unwrap_err().contains(why));
        }
    }

    #[tokio::test]
    async fn a_missing_agent_is_named() {
        let client = Client::new(Host::Unix("/nowhere/mesh.sock".into()));
        let error = client.get::<()>("/v1/status").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot connect to the mesh agent at unix:///nowhere/mesh.sock: no such file. Is the agent running?"
        );
        assert!(error.is_passing());
    }
}
