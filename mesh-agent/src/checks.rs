//! **Effect.** Tells load balancers in front of the nodes whether flows may come to this one.
//!
//! One TCP port speaks two languages, told apart by the first line: HTTP (`GET /web`), where a status says it, and
//! HAProxy's agent-check (`web`), where words do (HAProxy's configuration manual, "agent-check"). What is said is
//! decided in [`mesh_core::readiness`].

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode, Uri};
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mesh_core::readiness::{Entry, PortAsked, Readiness};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::Control;

/// How many are answered at once.
const CONNECTIONS: usize = 256;
/// Whoever speaks the agent's language may say nothing, and asks for the node then.
const SPEAK: Duration = Duration::from_millis(500);
/// How long one connection may last.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest question: names of services are at most 63 bytes.
const QUESTION: u64 = 128;

/// Answers until told to stop.
pub async fn serve(listener: TcpListener, control: Control, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: others end meanwhile.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Beyond that they are turned away, and ask again.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let control = control.clone();
        tracker.spawn(async move {
            let _ = timeout(PATIENCE, converse(stream, control)).await;
            drop(place);
        });
    }
    tracker.close();
    let _ = timeout(Duration::from_secs(1), tracker.wait()).await;
}

async fn converse(stream: TcpStream, control: Control) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let first = timeout(SPEAK, read.fill_buf()).await.unwrap_or(Ok(&[]))?;
    // No name has a space in it, and every request of HTTP does.
    if first.contains(&b' ') {
        let stream = TokioIo::new(tokio::io::join(read, write));
        let router = axum::Router::new().fallback(move |method: Method, uri: Uri| async move {
            match method {
                Method::GET | Method::HEAD | Method::OPTIONS => status(&ask(&control, name(&uri))),
                _ => (StatusCode::METHOD_NOT_ALLOWED, "ask with GET\n".to_owned()).into_response(),
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
        let _ = http.serve_connection(stream, TowerToHyperService::new(router)).await;
        return Ok(());
    }
    let mut question = String::new();
    if !first.is_empty() {
        read.take(QUESTION).read_line(&mut question).await?;
    }
    write.write_all(words(&ask(&control, question.trim())).as_bytes()).await?;
    write.shutdown().await
}

fn name(uri: &Uri) -> &str {
    uri.path().trim_matches('/')
}

/// What is to be said of the node, of a service by name, of its published port by `service:port`, or of a task by
/// `service.slot`.
fn ask(control: &Control, reference: &str) -> Readiness {
    let (world, status) = (control.world(), control.status());
    let entry = Entry { node: control.node(), masks: &status.silent };
    if reference.is_empty() {
        return entry.node(&world);
    }
    let (name, port) = reference.split_once(':').map_or((reference, None), |(name, port)| (name, Some(port)));
    let port = match port.map(str::parse::<PortAsked>).transpose() {
        Ok(port) => port,
        Err(wrong) => return Readiness::Down(wrong),
    };
    let found = if reference.contains('.') {
        world.task(reference).map(|task| entry.task(&world, task))
    } else {
        world.service(name).map(|service| entry.service(&world, service, port))
    };
    let kind = if reference.contains('.') { "task" } else { "service" };
    found.unwrap_or_else(|| Readiness::Down(format!("there is no such {kind}")))
}

/// HAProxy takes 404 for "let what runs go on" with `http-check disable-on-404`, and for a failure without.
fn status(readiness: &Readiness) -> axum::response::Response {
    let (code, text) = match readiness {
        Readiness::Up(percent) => (StatusCode::OK, format!("up {percent}%\n")),
        Readiness::Draining(why) => (StatusCode::NOT_FOUND, format!("draining: {why}\n")),
        Readiness::Down(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("down: {why}\n")),
    };
    (code, text).into_response()
}

/// `ready` undoes a `drain` that was said before; what is not a word of its own is not understood.
fn words(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Up(percent) => format!("ready up {percent}%\n"),
        Readiness::Draining(_) => "drain\n".to_owned(),
        Readiness::Down(why) => format!("ready down #{}\n", why.replace('\n', " ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haproxy_is_answered_in_its_words() {
        assert_eq!(words(&Readiness::Up(25)), "ready up 25%\n");
        assert_eq!(words(&Readiness::Draining("it leaves".to_owned())), "drain\n");
        assert_eq!(words(&Readiness::Down("no\ntask".to_owned())), "ready down #no task\n");
    }

    #[test]
    fn a_path_is_a_name() {
        for (path, expected) in [
            ("/", ""),
            ("/web", "web"),
            ("/web.1/", "web.1"),
            ("/web?x=1", "web"),
            ("/web:53/udp", "web:53/udp"),
        ] {
            assert_eq!(name(&path.parse().unwrap()), expected);
        }
    }
}
