//! **Effect.** One connection to a gateway: TLS, where there are certificates, and HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::access::{Access, Connected};
use super::server::{PATIENCE, SILENCE};
use crate::pki::Peer;

/// How long a client may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long what was sent may stay unacknowledged by the client.
const STUCK: Duration = Duration::from_secs(10);

/// Serves one connection until it ends, or is no longer let in.
pub(super) async fn serve(
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    access: Access,
    shutdown: CancellationToken,
) {
    let socket = socket2::SockRef::from(&stream);
    let tuned = stream.set_nodelay(true).and_then(|()| socket.set_tcp_user_timeout(Some(STUCK)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection of the store's gateway keeps the kernel's timeouts");
    }
    match access {
        Access::Secret(_) => converse(stream, None, router, shutdown).await,
        Access::Certificates(admission) => {
            let handshake = tokio::time::timeout(HANDSHAKE, admission.tls().accept(stream));
            let handshake = tokio::select! {
                () = shutdown.cancelled() => return,
                handshake = handshake => handshake,
            };
            let (stream, peer) = match handshake {
                Ok(Ok(accepted)) => accepted,
                Ok(Err(error)) => {
                    return tracing::debug!(%from, %error, "a client of the store's gateway is not let in");
                }
                Err(_) => {
                    return tracing::debug!(%from, "a client of the store's gateway does not begin TLS in time");
                }
            };
            tokio::select! {
                () = converse(stream, peer.clone(), router, shutdown) => {}
                () = admission.turned_out(peer.as_ref()) => {}
            }
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Option<Peer>,
    router: Router,
    shutdown: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(64 << 10);
    let router = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Connected(peer.clone()));
        request
    });
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(SILENCE, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection of the store's gateway broke");
    }
}
