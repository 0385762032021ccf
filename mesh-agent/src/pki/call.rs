//! **Effect.** One question to a manager about certificates, and its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Turned;
use super::tls::{connect, explain};

/// How long a manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer answers come from no manager, bytes.
const LONGEST: usize = 256 << 10;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It was not asked.
    #[error("the manager at {at} cannot be asked: {why}")]
    Unreached {
        /// Address.
        at: String,
        /// What happened.
        why: String,
    },
    /// It was asked, and what it did is not known.
    #[error("the manager at {at} does not answer: {why}; try again")]
    NoAnswer {
        /// Address.
        at: String,
        /// What happened.
        why: String,
    },
    /// It says no.
    #[error("the manager at {at} refuses: {turned}")]
    Refused {
        /// Address.
        at: String,
        /// Why.
        turned: Turned,
    },
}

/// Asks a manager.
pub(super) async fn call<T: DeserializeOwned>(
    at: &str,
    config: &Arc<ClientConfig>,
    method: Method,
    path: &str,
    body: String,
) -> Result<T, CallError> {
    let unreached = |why: String| CallError::Unreached { at: at.to_owned(), why };
    let lost = |why: String| CallError::NoAnswer { at: at.to_owned(), why };
    let late = "it takes longer than 5 s";
    let dialed = async {
        let stream = TcpStream::connect(at).await.map_err(|error| error.to_string())?;
        let stream = connect(config, stream).await?;
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|error| explain(&error))
    };
    let dialed = timeout(PATIENCE, dialed).await;
    let (mut sender, connection) = dialed.map_err(|_| unreached(late.to_owned()))?.map_err(unreached)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, at)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| unreached(error.to_string()))?;
    let exchange = async {
        let answered = async {
            let response = sender.send_request(request).await.map_err(|error| explain(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            Ok::<_, String>((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            answered = &mut answered => answered,
            ended = &mut connection => match (answered.await, ended) {
                // What broke the connection says more than that it broke.
                (Err(_), Err(error)) => Err(explain(&error)),
                (answered, _) => answered,
            },
        }
    };
    let answered = timeout(PATIENCE, exchange).await;
    let (status, answer) = answered.map_err(|_| lost(late.to_owned()))?.map_err(lost)?;
    if !status.is_success() {
        return Err(match serde_json::from_slice(&answer) {
            Ok(turned) => CallError::Refused { at: at.to_owned(), turned },
            Err(_) => unreached(format!("it answers as no manager of this version does: {status}")),
        });
    }
    serde_json::from_slice(&answer).map_err(|error| lost(format!("its answer is garbled: {error}")))
}
