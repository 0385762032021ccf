//! **Effect.** A store that another node's gateway serves.
//!
//! What matters here is to know what is not known: a transaction whose request left and whose answer did not
//! come may have happened, and says so. Nothing reconnects by itself but for the next request; whoever
//! watches decides what a lost watch means.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use mesh_core::kv::{InvalidTxn, LeaseId, Listing, Rev, Txn, TxnOutcome};
use mesh_core::records::to_json;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use super::Secret;
use super::dial::{Gateways, Proof, Sender};
use super::watch::lines;
use super::wire::{CLUSTER, Refusal, Ttl, escape};
use crate::pki::Tls;
use crate::store::{Batches, Store, StoreError, StoreStatus, WatchEnd};

/// How long a request may take, and how long an answer or a watch may be silent.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection is kept for the next request; much shorter than the gateway's patience, so that the
/// two rarely disagree.
const IDLE: Duration = Duration::from_secs(5);
/// How many are kept.
const POOL: usize = 8;
/// Longer answers come from no gateway.
const MAX_ANSWER: usize = 1 << 30;

/// Why a request was not answered.
#[derive(Debug)]
enum Failure {
    /// It did not leave this node.
    NotSent(String),
    /// It may have arrived.
    NoAnswer(String),
}

impl Failure {
    fn why(self) -> String {
        match self {
            Self::NotSent(why) | Self::NoAnswer(why) => why,
        }
    }
}

/// The store behind a gateway, or behind any of several.
#[derive(Debug)]
pub struct GatewayStore {
    gateways: Gateways,
    /// Which store was found there first; from then on only that one is meant.
    cluster: OnceLock<String>,
    idle: Mutex<Vec<(Sender, Instant)>>,
}

impl GatewayStore {
    /// The gateway at `host:port`. It is called when something is asked of it, and not before, so that a node
    /// can start without it.
    pub fn connect(addr: impl Into<String>, token: Secret) -> Self {
        Self::new(vec![addr.into()], Proof::Secret(token))
    }

    /// The gateways of managers at `host:port`, at least one, with this node's certificate. One is asked for as long as it
    /// answers, then the next.
    pub fn with_certificate(addrs: Vec<String>, tls: Arc<Tls>) -> Self {
        Self::new(addrs, Proof::Certificate(tls))
    }

    fn new(addrs: Vec<String>, proof: Proof) -> Self {
        Self { gateways: Gateways::new(addrs, proof), cluster: OnceLock::new(), idle: Mutex::new(Vec::new()) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Sender, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pooled(&self) -> Option<Sender> {
        let mut idle = self.idle();
        idle.retain(|(sender, since)| {
            sender.http.is_ready() && since.elapsed() < IDLE && self.gateways.is_current(sender)
        });
        idle.pop().map(|(sender, _)| sender)
    }

    /// The gateway that is asked now.
    fn at(&self) -> &str {
        self.gateways.at()
    }

    /// From now on another one is asked, if there is one.
    fn move_on(&self, from: &str) {
        if self.gateways.move_on(from) {
            self.idle().clear();
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: &Bytes,
        bound: bool,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.at())
            .header(header::CONTENT_TYPE, "application/json");
        if let Proof::Secret(token) = self.gateways.proof() {
            request = request.header(header::AUTHORIZATION, token.bearer());
        }
        if let Some(cluster) = self.cluster.get().filter(|_| bound) {
            request = request.header(CLUSTER, cluster);
        }
        request.body(Full::new(body.clone())).map_err(|error| Failure::NotSent(error.to_string()))
    }

    /// Sends a request; the answer's body is still to come.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Sender, Response<Incoming>), Failure> {
        let at = self.at().to_owned();
        let sent = self.send_once(request).await;
        if matches!(sent, Err(Failure::NoAnswer(_))) {
            self.move_on(&at);
        }
        sent
    }

    async fn send_once(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Sender, Response<Incoming>), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pooled = self.pooled();
            let fresh = pooled.is_none();
            let mut sender = match pooled {
                Some(sender) => sender,
                None => self.gateways.dial(deadline).await.map_err(Failure::NotSent)?,
            };
            match timeout_at(deadline, sender.http.try_send_request(request)).await {
                Ok(Ok(response)) => return Ok((sender, response)),
                Ok(Err(mut failed)) => match failed.take_message() {
                    // The gateway had closed a connection that was kept; a new one may do.
                    Some(unsent) if !fresh => request = unsent,
                    unsent => {
                        let broke = sender.reason(&failed.into_error()).await;
                        let heard = unsent.is_none() && !broke.turned_down;
                        return Err(if heard {
                            Failure::NoAnswer(broke.why)
                        } else {
                            Failure::NotSent(broke.why)
                        });
                    }
                },
                Err(_) => return Err(Failure::NoAnswer("it did not answer in time".to_owned())),
            }
        }
    }

    /// A whole exchange. `bound`: only with the store that was found first.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
        bound: bool,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let request = self.request(method, path, &Bytes::from(body), bound)?;
        let (sender, response) = self.send(request).await?;
        let status = response.status();
        let mut answer = BytesMut::new();
        let mut body = response.into_body();
        loop {
            match timeout(PATIENCE, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => answer.extend(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(error))) => return Err(Failure::NoAnswer(error.to_string())),
                Err(_) => return Err(Failure::NoAnswer("its answer stopped halfway".to_owned())),
            }
            if answer.len() > MAX_ANSWER {
                return Err(Failure::NoAnswer("its answer is too long".to_owned()));
            }
        }
        let mut idle = self.idle();
        if idle.len() < POOL && !sender.http.is_closed() {
            idle.push((sender, Instant::now()));
        }
        Ok((status, answer.freeze()))
    }

    fn unavailable(&self, why: String) -> StoreError {
        StoreError::Unavailable { at: self.at().to_owned(), why }
    }

    /// What an answer other than OK means.
    fn refused(&self, status: StatusCode, answer: &[u8]) -> StoreError {
        if let (StatusCode::UNAUTHORIZED, Proof::Secret(token)) = (status, self.gateways.proof()) {
            return StoreError::Denied {
                at: self.at().to_owned(),
                why: format!(
                    "the token {} is not the one that it expects; copy the token file of the gateway's node",
                    token.place()
                ),
            };
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let at = self.at().to_owned();
            self.move_on(&at);
        }
        match serde_json::from_slice::<Refusal>(answer) {
            Ok(refusal) => refusal.into_store_error(self.at()),
            Err(_) => {
                let text: String = String::from_utf8_lossy(answer).chars().take(200).collect();
                self.unavailable(format!("it answers as no gateway of this version does: {status} {text}"))
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: String,
        bound: bool,
    ) -> Result<T, StoreError> {
        let exchanged = self.exchange(method, path, body, bound).await;
        let (status, answer) = exchanged.map_err(|failure| self.unavailable(failure.why()))?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &answer));
        }
        serde_json::from_slice(&answer)
            .map_err(|error| self.unavailable(format!("its answer is garbled: {error}")))
    }

    fn met(&self, cluster: &str) {
        self.cluster.get_or_init(|| cluster.to_owned());
    }
}

#[async_trait]
impl Store for GatewayStore {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let path = format!("/store/v1/list?prefix={}", escape(prefix));
        let listing: Listing = self.ask(Method::GET, &path, String::new(), false).await?;
        self.met(&listing.cluster);
        Ok(listing)
    }

    async fn watch(&self, prefix: &str, after: Rev) -> Result<Batches, StoreError> {
        let path = format!("/store/v1/watch?prefix={}&after={after}", escape(prefix));
        let request = self.request(Method::GET, &path, &Bytes::new(), true);
        let sent = async { self.send(request?).await }.await;
        let (sender, response) = sent.map_err(|failure| self.unavailable(failure.why()))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(lines(sender, response.into_body()));
        }
        let answer = timeout(PATIENCE, response.into_body().collect()).await;
        let answer = answer.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        if matches!(serde_json::from_slice(&answer), Ok(Refusal::WrongCluster(_))) {
            return Ok(Box::pin(stream::iter([Err(WatchEnd::WrongCluster)])));
        }
        Err(self.refused(status, &answer))
    }

    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let body = to_json(&txn);
        let size = body.len();
        let (status, answer) = match self.exchange(Method::POST, "/store/v1/txn", body, true).await {
            Ok(answered) => answered,
            Err(Failure::NotSent(why)) => return Err(self.unavailable(why)),
            // The gateway stops reading what is too large, so that the answer may get lost.
            Err(Failure::NoAnswer(_)) if size > 8 * mesh_core::kv::MAX_BYTES => {
                return Err(InvalidTxn::TooHeavy(size).into());
            }
            Err(Failure::NoAnswer(why)) => {
                return Ok(TxnOutcome::Unknown { why: format!("the store at {}: {why}", self.at()) });
            }
        };
        if status != StatusCode::OK {
            return Err(self.refused(status, &answer));
        }
        Ok(serde_json::from_slice(&answer).unwrap_or_else(|error| TxnOutcome::Unknown {
            why: format!("the answer of the store at {} is garbled: {error}", self.at()),
        }))
    }

    async fn lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        self.ask(Method::POST, "/store/v1/lease", to_json(&Ttl { seconds }), true).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let path = format!("/store/v1/lease/{}/keepalive", lease.0);
        self.ask(Method::POST, &path, String::new(), true).await
    }

    async fn status(&self) -> Result<StoreStatus, StoreError> {
        let status: StoreStatus = self.ask(Method::GET, "/store/v1/status", String::new(), false).await?;
        self.met(&status.cluster);
        Ok(StoreStatus { engine: "gateway".to_owned(), ..status })
    }
}
