//! **Effect.** What a gateway with certificates answers about the mesh itself: whom to trust, to anybody; a certificate, to
//! who has a token; the next one, to who has one.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::access::{Access, peer};
use super::server::{Gateway, read};
use crate::pki::{Admission, Issued, Turned};

/// Longer requests ask for nothing, bytes.
const LONGEST: usize = 16 << 10;

/// What there is to ask; nothing, where there are no certificates.
pub(super) fn routes(access: &Access) -> Router<Gateway> {
    match access {
        Access::Secret(_) => Router::new(),
        Access::Certificates(_) => Router::new()
            .route("/cluster/v1/ca", get(ca))
            .route("/cluster/v1/join", post(join))
            .route("/cluster/v1/renew", post(renew)),
    }
}

fn admission(gateway: &Gateway) -> Option<&Admission> {
    match &gateway.access {
        Access::Certificates(admission) => Some(admission),
        Access::Secret(_) => None,
    }
}

fn answer(issued: Result<Issued, Turned>) -> Response {
    match issued {
        Ok(issued) => axum::Json(issued).into_response(),
        Err(turned) if turned.later => (StatusCode::SERVICE_UNAVAILABLE, axum::Json(turned)).into_response(),
        Err(turned) => (StatusCode::FORBIDDEN, axum::Json(turned)).into_response(),
    }
}

async fn ca(State(gateway): State<Gateway>) -> Response {
    match admission(&gateway) {
        Some(admission) => axum::Json(admission.tls().roots()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn join(State(gateway): State<Gateway>, body: Body) -> Response {
    let Some(admission) = admission(&gateway) else { return StatusCode::NOT_FOUND.into_response() };
    match read(body, LONGEST).await {
        Ok(request) => answer(admission.join(&request).await),
        Err(response) => response,
    }
}

async fn renew(State(gateway): State<Gateway>, request: Request) -> Response {
    let Some(admission) = admission(&gateway) else { return StatusCode::NOT_FOUND.into_response() };
    let Some(peer) = peer(&request).cloned() else {
        let why =
            "only a node with a certificate of this mesh gets the next one: join with a token".to_owned();
        return answer(Err(Turned { why, later: false }));
    };
    if let Err(why) = admission.standing(&peer) {
        return answer(Err(Turned { why, later: false }));
    }
    match read(request.into_body(), LONGEST).await {
        Ok(request) => answer(admission.renew(&peer, &request).await),
        Err(response) => response,
    }
}
