//! **Effect.** Requests are read strictly, and every refusal is JSON with a message for people and a kind for
//! programs: a misspelt field that is passed over in silence is a change that never happens.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use mesh_core::change::Refusal;
use mesh_core::kv::Rev;
use serde::de::DeserializeOwned;

use super::types::{Changed, ErrorBody, ErrorKind};
use crate::cluster::ClusterError;
use crate::control::{Control, ControlError};

/// A refusal.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    body: ErrorBody,
}

/// What a handler gives.
pub(super) type Answer<T> = Result<T, Refused>;

impl Refused {
    pub(super) fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { message: message.into(), kind } }
    }

    /// The request makes no sense by itself.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::Invalid, message)
    }

    /// Nothing has this name.
    pub(super) fn not_found(kind: &str, reference: &str) -> Self {
        Self::absent(format!("{kind} {reference} not found"))
    }

    /// There is no such thing here, and why.
    pub(super) fn absent(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
    }

    /// It cannot be told now.
    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable, message)
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Self {
        let message = error.to_string();
        let (status, kind) = match error {
            ControlError::Refused(Refusal::Invalid(_)) => (StatusCode::BAD_REQUEST, ErrorKind::Invalid),
            ControlError::Refused(Refusal::NotFound { .. }) => (StatusCode::NOT_FOUND, ErrorKind::NotFound),
            ControlError::Refused(Refusal::Conflict(_)) => (StatusCode::CONFLICT, ErrorKind::Conflict),
            ControlError::Refused(Refusal::Exhausted(_)) => (StatusCode::CONFLICT, ErrorKind::Exhausted),
            ControlError::Local(_) => (StatusCode::CONFLICT, ErrorKind::Conflict),
            ControlError::Store(_) | ControlError::Contended | ControlError::Unsure(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable)
            }
        };
        Self::new(status, kind, message)
    }
}

impl From<ClusterError> for Refused {
    fn from(error: ClusterError) -> Self {
        let message = error.to_string();
        let (status, kind) = match error {
            ClusterError::Invalid(_) => (StatusCode::BAD_REQUEST, ErrorKind::Invalid),
            ClusterError::Conflict(_) => (StatusCode::CONFLICT, ErrorKind::Conflict),
            ClusterError::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable),
        };
        Self::new(status, kind, message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, axum::Json(self.body)).into_response()
    }
}

/// A JSON body, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            Refused::new(rejection.status(), ErrorKind::Invalid, rejection.body_text())
        })?;
        // Serde would take a list for an object's fields in their order.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
            return Err(Refused::invalid("invalid request body: it is no JSON object"));
        }
        let value = serde_json::from_slice(&bytes)
            .map_err(|error| Refused::invalid(format!("invalid request body: {error}")))?;
        Ok(Self(value))
    }
}

/// Reads a query that knows one switch: `?force`, `?force=true`, `?force=1`.
pub(super) fn switch(query: Option<&str>, name: &str) -> Answer<bool> {
    let mut on = false;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        if key != name {
            return Err(Refused::invalid(format!("unknown query parameter '{key}': there is '{name}'")));
        }
        on = match value {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                return Err(Refused::invalid(format!("invalid value '{value}' of query parameter '{name}'")));
            }
        };
    }
    Ok(on)
}

/// What to tell of a change.
pub(super) fn changed(
    control: &Control,
    id: impl ToString,
    name: impl ToString,
    rev: Rev,
) -> axum::Json<Changed> {
    let world = control.world();
    // A change that changed nothing comes with the revision of the last sign of life, which no node ever
    // reports as applied.
    let rev = if world.rev >= rev { rev.min(world.changed) } else { rev };
    axum::Json(Changed { id: id.to_string(), name: name.to_string(), revision: rev.0 })
}

/// There is no such path.
pub(super) async fn no_route(uri: Uri) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, format!("no such path: {}", uri.path()))
}

/// There is such a path, but not with this method.
pub(super) async fn no_method(method: Method, uri: Uri) -> Refused {
    let message = format!("{method} is not possible on {}", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_strictly() {
        assert!(!switch(None, "force").unwrap());
        for on in ["force", "force=1", "force=true"] {
            assert!(switch(Some(on), "force").unwrap(), "{on}");
        }
        assert!(!switch(Some("force=false"), "force").unwrap());
        assert!(switch(Some("forec"), "force").unwrap_err().body.message.contains("'forec'"));
        assert!(switch(Some("force=maybe"), "force").is_err());
    }
}
