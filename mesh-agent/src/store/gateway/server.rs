//! **Effect.** Serves a store to other nodes.
//!
//! Everything here is bounded: connections, heads, bodies, the time a client may take. A watch reads the
//! store only as fast as its client takes the lines, so that a slow one costs nothing but its connection.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use futures_util::{StreamExt, stream};
use mesh_core::kv::{InvalidTxn, LeaseId, MAX_BYTES, MAX_KEY, MAX_OPS, Rev, Txn, TxnOutcome};
use mesh_core::rights::{Caller, may_read};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Access;
use super::wire::{CLUSTER, Line, Refusal, Ttl, Which};
use super::{cluster, connection};
use crate::store::{Batches, Store, StoreError, WatchEnd};

/// How many connections there are at most; each node has a few.
const CONNECTIONS: usize = 4096;
/// The largest transaction that is none too large, with every character escaped.
const BODY: usize = 6 * (MAX_BYTES + MAX_OPS * MAX_KEY) + (1 << 20);
/// How long a client may take to say what it wants, and be idle.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long the store's watch may be silent; it promises to say something each second.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) store: Arc<dyn Store>,
    pub(super) access: Access,
    shutdown: CancellationToken,
}

/// Serves until told to stop; then ends watches, finishes requests, and returns.
pub async fn serve(
    store: Arc<dyn Store>,
    listener: TcpListener,
    access: impl Into<Access>,
    shutdown: CancellationToken,
) {
    let access = access.into();
    let gateway = Gateway { store, access: access.clone(), shutdown: shutdown.clone() };
    let router = Router::new()
        .route("/store/v1/txn", post(txn))
        .route("/store/v1/list", get(list))
        .route("/store/v1/watch", get(watch))
        .route("/store/v1/lease", post(lease))
        .route("/store/v1/lease/{id}/keepalive", post(keep_alive))
        .route("/store/v1/status", get(status))
        .layer(from_fn_with_state(gateway.clone(), admit))
        .merge(cluster::routes(&access))
        .with_state(gateway);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match Arc::clone(&room).try_acquire_owned() {
                Ok(place) => {
                    let (router, shutdown) = (router.clone(), shutdown.clone());
                    let access = access.clone();
                    tasks.spawn(async move {
                        connection::serve(stream, peer, router, access, shutdown).await;
                        drop(place);
                    });
                }
                Err(_) => tracing::warn!(%peer, "the store's gateway has no room for another connection"),
            },
            Err(error) => {
                // Too many open files, as a rule: others will be closed.
                tracing::warn!(%error, "the store's gateway cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Lets in who may come and means this store.
async fn admit(State(gateway): State<Gateway>, mut request: Request, next: Next) -> Response {
    match gateway.access.caller(&request) {
        Ok(caller) => drop(request.extensions_mut().insert(caller)),
        Err(refusal) => return refuse(refusal),
    }
    if let Some(meant) = request.headers().get(CLUSTER) {
        match gateway.store.status().await {
            Ok(status) if meant.as_bytes() != status.cluster.as_bytes() => {
                return refuse(Refusal::WrongCluster(status.cluster));
            }
            Ok(_) => {}
            Err(error) => return refuse(error.into()),
        }
    }
    next.run(request).await
}

fn refuse(refusal: Refusal) -> Response {
    let status = match &refusal {
        Refusal::Invalid(InvalidTxn::TooHeavy(_)) => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        Refusal::Denied(_) => StatusCode::UNAUTHORIZED,
        Refusal::Forbidden(_) => StatusCode::FORBIDDEN,
        Refusal::LeaseGone(_) => StatusCode::NOT_FOUND,
        Refusal::WrongCluster(_) => StatusCode::CONFLICT,
        Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Corrupt(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, axum::Json(refusal)).into_response()
}

fn answer<T: serde::Serialize>(done: Result<T, StoreError>) -> Response {
    match done {
        Ok(done) => axum::Json(done).into_response(),
        Err(error) => refuse(error.into()),
    }
}

/// A request's body as what it should be.
pub(super) async fn read<T: serde::de::DeserializeOwned>(body: Body, longest: usize) -> Result<T, Response> {
    // Who announces too much is not even listened to.
    let announced = body.size_hint().lower();
    if announced > longest as u64 {
        let size = usize::try_from(announced).unwrap_or(usize::MAX);
        return Err(refuse(Refusal::Invalid(InvalidTxn::TooHeavy(size))));
    }
    let bytes = match tokio::time::timeout(PATIENCE, to_bytes(body, longest)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => return Err(refuse(Refusal::Invalid(InvalidTxn::TooHeavy(longest)))),
        Err(_) => return Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        (StatusCode::UNPROCESSABLE_ENTITY, format!("not what is expected here: {error}")).into_response()
    })
}

async fn txn(State(gateway): State<Gateway>, Extension(caller): Extension<Caller>, body: Body) -> Response {
    let txn = match read::<Txn>(body, BODY).await {
        Ok(txn) => txn,
        Err(response) => return response,
    };
    let txn = match gateway.access.may_commit(&caller, txn).await {
        Ok(txn) => txn,
        Err(refusal) => return refuse(refusal),
    };
    let mut done = gateway.store.txn(txn).await;
    if let Ok(TxnOutcome::Conflict { found, .. }) = &mut done {
        found.retain(|kv| may_read(&caller, &kv.key));
    }
    answer(done)
}

async fn list(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<Which>,
) -> Response {
    let mut listed = gateway.store.list(&which.prefix).await;
    if let Ok(listing) = &mut listed {
        listing.kvs.retain(|kv| may_read(&caller, &kv.key));
    }
    answer(listed)
}

async fn lease(State(gateway): State<Gateway>, body: Body) -> Response {
    match read::<Ttl>(body, BODY).await {
        Ok(ttl) => answer(gateway.store.lease(Duration::from_secs(ttl.seconds)).await),
        Err(response) => response,
    }
}

async fn keep_alive(State(gateway): State<Gateway>, Path(id): Path<u64>) -> Response {
    answer(gateway.store.keep_alive(LeaseId(id)).await)
}

async fn status(State(gateway): State<Gateway>) -> Response {
    answer(gateway.store.status().await)
}

async fn watch(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<Which>,
) -> Response {
    match gateway.store.watch(&which.prefix, Rev(which.after)).await {
        Ok(batches) => {
            let batches: Batches = Box::pin(batches.map(move |item| {
                item.map(|mut batch| {
                    batch.events.retain(|event| may_read(&caller, event.key()));
                    batch
                })
            }));
            let lines = stream::unfold(Some((batches, gateway.shutdown)), next_line);
            ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
        }
        Err(error) => refuse(error.into()),
    }
}

type Watching = Option<(Batches, CancellationToken)>;

async fn next_line(watching: Watching) -> Option<(Result<Bytes, std::convert::Infallible>, Watching)> {
    let (mut batches, shutdown) = watching?;
    let lost = |why: &str| Err(WatchEnd::Lost(why.to_owned()));
    let item = tokio::select! {
        () = shutdown.cancelled() => lost("the gateway stops"),
        item = tokio::time::timeout(SILENCE, batches.next()) => match item {
            Ok(Some(item)) => item,
            Ok(None) => lost("the store ended the watch"),
            Err(_) => lost("the store behind the gateway fell silent"),
        },
    };
    let rest = item.is_ok().then_some((batches, shutdown));
    let mut line = mesh_core::records::to_json(&Line::from(item)).into_bytes();
    line.push(b'\n');
    Some((Ok(Bytes::from(line)), rest))
}
