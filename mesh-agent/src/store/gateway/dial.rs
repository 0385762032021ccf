//! **Effect.** Connections to gateways: which one is asked, and how this node shows who it is.
//!
//! One is asked for as long as it answers: what a node has seen there it sees again there. Then the next one is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;

use super::Secret;
use crate::pki::{Tls, explain, is_turned_down};

/// How long to wait for the reason why a connection broke.
const REASON: Duration = Duration::from_millis(200);

/// A connection to a gateway, for one request at a time.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) http: SendRequest<Full<Bytes>>,
    /// By which certificate of this node's it is let in.
    serial: String,
    broke: watch::Receiver<Option<Broke>>,
}

/// Why a connection broke.
#[derive(Debug, Clone)]
pub(super) struct Broke {
    /// In words.
    pub(super) why: String,
    /// This node was not let in: nothing that it sent was heard.
    pub(super) turned_down: bool,
}

impl Sender {
    /// Why a request failed: what broke the connection says more than that it broke.
    pub(super) async fn reason(&mut self, error: &hyper::Error) -> Broke {
        let broke = timeout(REASON, self.broke.wait_for(Option::is_some)).await;
        let broke = broke.ok().and_then(Result::ok).and_then(|broke| broke.clone());
        broke.unwrap_or_else(|| Broke { why: explain(error), turned_down: false })
    }
}

/// How a node shows who it is.
#[derive(Debug)]
pub(super) enum Proof {
    Secret(Secret),
    Certificate(Arc<Tls>),
}

/// Gateways to the same store.
#[derive(Debug)]
pub(super) struct Gateways {
    /// At least one.
    addrs: Vec<String>,
    /// Which of them is asked.
    current: AtomicUsize,
    proof: Proof,
    connections: TaskTracker,
}

impl Gateways {
    pub(super) fn new(addrs: Vec<String>, proof: Proof) -> Self {
        Self { addrs, current: AtomicUsize::new(0), proof, connections: TaskTracker::new() }
    }

    pub(super) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The one that is asked now.
    pub(super) fn at(&self) -> &str {
        let current = self.current.load(Ordering::Relaxed);
        self.addrs.get(current % self.addrs.len().max(1)).map_or("", String::as_str)
    }

    /// From now on another one is asked, if there is another and nobody has moved on already; whether it is so.
    pub(super) fn move_on(&self, from: &str) -> bool {
        let moves = self.addrs.len() > 1 && self.at() == from;
        if moves {
            self.current.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%from, to = self.at(), "asking the next gateway");
        }
        moves
    }

    /// Connects to the one that is asked now, or to the next that answers.
    pub(super) async fn dial(&self, deadline: Instant) -> Result<Sender, String> {
        let mut why = "no gateway is known".to_owned();
        let mut left = self.addrs.len();
        while left > 0 {
            let at = self.at().to_owned();
            let now = Instant::now();
            let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
            match timeout_at(now + share, self.dial_one(&at)).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(error)) => why = error,
                Err(_) => why = "it cannot be reached in time".to_owned(),
            }
            self.move_on(&at);
            left -= 1;
        }
        Err(why)
    }

    async fn dial_one(&self, at: &str) -> Result<Sender, String> {
        let stream = TcpStream::connect(at).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        // One that is renewed meanwhile makes a connection that is used once.
        let serial = self.serial();
        match &self.proof {
            Proof::Secret(_) => self.handshake(stream, serial).await,
            Proof::Certificate(tls) => self.handshake(tls.connect(stream).await?, serial).await,
        }
    }

    fn serial(&self) -> String {
        match &self.proof {
            Proof::Secret(_) => String::new(),
            Proof::Certificate(tls) => tls.me().serial,
        }
    }

    /// Whether a connection shows who this node is now: a certificate that was renewed may have ended.
    pub(super) fn is_current(&self, sender: &Sender) -> bool {
        sender.serial == self.serial()
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        serial: String,
    ) -> Result<Sender, String> {
        let (http, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let (reason, broke) = watch::channel(None);
        self.connections.spawn(async move {
            if let Err(error) = connection.await {
                let why = explain(&error);
                tracing::debug!("a connection to the store's gateway broke: {why}");
                reason.send_replace(Some(Broke { why, turned_down: is_turned_down(&error) }));
            }
        });
        Ok(Sender { http, serial, broke })
    }
}
