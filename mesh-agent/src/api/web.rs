//! **Effect.** The web page: `/ui/` on the API's socket, and at an address of its own where the configuration says so.
//!
//! It can be read and changes nothing. The page's files are part of the program; what it shows comes by `/v1/ui/stream`.

mod stage;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use stage::Stage;

use super::ApiState;
use super::answer::{Answer, Refused, no_method, no_route};
use super::types::{ErrorBody, ErrorKind, WebState};

/// Who takes nothing for so long is gone.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Nothing from elsewhere, nothing inline, nowhere inside of another page.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; \
                      require-trusted-types-for 'script'";

macro_rules! files {
    ($($name:literal: $kind:expr),+ $(,)?) => {
        /// The page: names, types and contents.
        const FILES: &[(&str, &str, &str)] =
            &[$(($name, $kind, include_str!(concat!("../../web/", $name)))),+];
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

files! {
    "index.html": HTML, "page.css": CSS, "icon.svg": "image/svg+xml",
    "chart.js": JS, "dom.js": JS, "events.js": JS, "filter.js": JS, "history.js": JS, "nodes.js": JS,
    "notices.js": JS, "page.js": JS, "services.js": JS, "stream.js": JS, "task.js": JS, "words.js": JS,
}

/// Answers until told to stop. Nothing can be changed there, and nothing else is to be had.
pub async fn serve_web(
    listener: TcpListener,
    state: ApiState,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Without that, who vanished keeps a place for a quarter of an hour; it is no harm beyond that.
        let _ = SockRef::from(&*stream).set_tcp_user_timeout(Some(PATIENCE));
    });
    let router = routes()
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(state.clone(), only_for_us))
        .layer(middleware::map_response(guarded))
        .with_state(state);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// The page's routes.
pub(super) fn routes() -> Router<ApiState> {
    let page = Router::new()
        .route("/", get(|| async { Redirect::permanent("/ui/") }))
        .route("/ui", get(|| async { Redirect::permanent("/ui/") }))
        .route("/ui/", get(page))
        .route("/ui/{file}", get(file))
        .route("/v1/ui/stream", get(stream));
    page.layer(middleware::map_response(guarded))
}

/// The web page
#[utoipa::path(get, path = "/ui/", tag = "node",
    responses((status = 200, description = "The page", content_type = "text/html")))]
pub(super) async fn page() -> Answer<Response> {
    named("index.html")
}

async fn file(Path(name): Path<String>) -> Answer<Response> {
    named(&name)
}

fn named(name: &str) -> Answer<Response> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, text) = found.ok_or_else(|| Refused::absent(format!("no such path: /ui/{name}")))?;
    Ok(([(CONTENT_TYPE, *kind), (CACHE_CONTROL, "no-cache")], *text).into_response())
}

/// What the web page shows, as server-sent events
///
/// `state` has all that there is, at first and after each change; `rates` comes each second, with what this node sent
/// to which task; `past` has the last 200 events, once, and `events` those that follow. Who reads slowly misses what is old. Nothing is counted while nobody reads.
#[utoipa::path(get, path = "/v1/ui/stream", tag = "node",
    responses(
        (status = 200, description = "Events `state`, `rates`, `past` and `events`", body = WebState, content_type = "text/event-stream"),
        (status = 503, description = "Too many read already", body = ErrorBody)))]
pub(super) async fn stream(State(state): State<ApiState>) -> Answer<Response> {
    let told = state.stage.listen(state.past.events.clone()).ok_or_else(|| {
        Refused::unavailable(
            "too many web pages are open on this node: close some, or look at another node's".to_owned(),
        )
    })?;
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(told)).into_response())
}

/// With what keeps browsers from doing more with an answer than the page needs.
async fn guarded(mut response: Response) -> Response {
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Another site's page, open in a browser that reaches us, must get nothing: neither as itself nor under a name of its
/// own that leads here (DNS rebinding).
async fn only_for_us(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match refusal(&state, &request) {
        Some(why) => Refused::new(StatusCode::MISDIRECTED_REQUEST, ErrorKind::Invalid, why).into_response(),
        None => next.run(request).await,
    }
}

fn refusal(state: &ApiState, request: &Request) -> Option<String> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(host) = header(HOST).and_then(|host| host.parse::<Authority>().ok()) else {
        return Some("the request does not say whom it is for: it needs a Host".to_owned());
    };
    let host = host.host();
    if !is_address(host) && !state.control.world().nodes.values().any(|node| node.name.as_str() == host) {
        return Some(format!(
            "{host} is no name of a node: ask by an address, by the name that the node has in the mesh, or by localhost"
        ));
    }
    let elsewhere = header(HeaderName::from_static("sec-fetch-site")) == Some("cross-site");
    (elsewhere && request.uri().path().starts_with("/v1/"))
        .then(|| "pages of other sites get nothing".to_owned())
}

/// Nobody else can have such a name.
fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_are_nobody_elses() {
        for host in ["localhost", "127.0.0.1", "[::1]", "192.0.2.7"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["example.org", "localhost.example.org", "127.0.0.1.example.org", "", "[x]"] {
            assert!(!is_address(host), "{host}");
        }
    }

    /// A page that names a file which is not served shows nothing.
    #[test]
    fn the_page_has_all_that_it_asks_for() {
        let served = |name: &str| FILES.iter().any(|(known, ..)| *known == name);
        for (name, _, text) in FILES {
            let asked = text.split(['"', '\'']).filter(|word| {
                let name = word.strip_prefix("./").unwrap_or(word);
                [".js", ".css", ".svg"].iter().any(|kind| name.ends_with(kind)) && !name.contains([' ', '$'])
            });
            for word in asked {
                assert!(served(word.trim_start_matches("./")), "{name} asks for {word}");
            }
            // The names of SVG's elements are no address.
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "").contains("://");
            assert!(!text.contains("innerHTML") && !elsewhere, "{name}");
        }
        assert_eq!(
            FILES.len(),
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).unwrap().count()
        );
    }
}
