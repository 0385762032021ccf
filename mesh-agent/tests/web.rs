//! The web page with many tasks, hostile texts and many readers, over a node without a kernel.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod harness;

use std::time::Duration;

use harness::Mesh;
use mesh_agent::api::types::WebState;
use mesh_core::plan::Problem;
use mesh_tests::Browser;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;

/// On a machine that does much else.
const SOON: Duration = Duration::from_secs(20);
const TASKS: usize = 1000;

/// So many tasks of `web`.
async fn tasks(mesh: &Mesh, count: usize) {
    for number in 1..=count {
        mesh.task_in(json!({"Netns": format!("/run/netns/{number}")})).await;
    }
}

/// A page of a node that has so many tasks.
async fn page(mesh: &Mesh) -> Browser {
    let url = format!("http://{}/ui/", mesh.web);
    block_in_place(|| {
        let mut browser = Browser::here().unwrap();
        browser.resize(1280, 800).unwrap();
        browser.open(&url).unwrap();
        browser.becomes(SOON, "document.getElementById('connection')?.textContent", "Live").unwrap();
        browser
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_are_drawn_in_time() {
    let mesh = Mesh::with_web().await;
    tasks(&mesh, TASKS).await;
    let mut browser = page(&mesh).await;
    let boxes = "document.querySelectorAll('.task').length";
    block_in_place(|| browser.becomes(SOON, boxes, TASKS).unwrap());
    let watch = "window.long = []; new PerformanceObserver((list) => long.push(...list.getEntries()
        .map((entry) => entry.duration))).observe({type: 'longtask'}); 0";
    block_in_place(|| browser.value::<u32>(watch).unwrap());
    // Each of these is a state of a thousand tasks.
    for slot in 1..=20 {
        let path = format!("/v1/tasks/web.{slot}");
        mesh.client.patch::<serde_json::Value>(&path, &json!({"Draining": true})).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    block_in_place(|| {
        browser
            .becomes(SOON, "document.querySelectorAll('.task[data-condition=draining]').length", 20)
            .unwrap();
        let long: Vec<f64> = browser.value("long").unwrap();
        println!("tasks of the page longer than 50 ms: {long:?}");
        // Others build and test on the same processors.
        assert!(long.iter().all(|ms| *ms < 3000.0), "{long:?}");
        assert_eq!(browser.faults().unwrap(), Vec::<String>::new());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_stay_texts() {
    let mesh = Mesh::with_web().await;
    let hostile = "<img src=x onerror=alert(1)> \u{202e}\u{1f4a3} </script><b>";
    mesh.store.say(|status| {
        status.problems = vec![Problem { about: "node n1".to_owned(), message: hostile.to_owned() }];
    });
    let mut browser = page(&mesh).await;
    block_in_place(|| {
        let told = "document.querySelector('#notices p')?.textContent";
        browser.becomes(SOON, told, format!("node n1: {hostile}")).unwrap();
        assert_eq!(
            browser.value::<u32>("document.querySelectorAll('img, b script, #notices b').length").unwrap(),
            0
        );
        assert_eq!(browser.faults().unwrap(), Vec::<String>::new());
    });
}

async fn listen(mesh: &Mesh) -> TcpStream {
    let mut stream = TcpStream::connect(mesh.web).await.unwrap();
    let request = format!("GET /v1/ui/stream HTTP/1.1\r\nHost: {}\r\n\r\n", mesh.web);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the text has come.
async fn until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0, "it ended without {text}");
        }
    };
    tokio::time::timeout(SOON, reading).await.expect(text);
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn a_reader_that_reads_nothing_holds_up_nobody() {
    let mesh = Mesh::with_web().await;
    let lazy = listen(&mesh).await;
    let mut keen = listen(&mesh).await;
    let first = until(&mut keen, "event: rates").await;
    let state = first.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let state: WebState = serde_json::from_str(state).unwrap();
    assert_eq!((state.node.name.as_str(), state.node.counts, state.services.len()), ("n1", false, 1));
    tasks(&mesh, 50).await;
    until(&mut keen, "web.50").await;

    // As many as there are places for, and no more.
    let mut others = Vec::new();
    for _ in 0..62 {
        let mut other = listen(&mesh).await;
        until(&mut other, "event: state").await;
        others.push(other);
    }
    assert!(until(&mut listen(&mesh).await, "close some").await.starts_with("HTTP/1.1 503"));
    drop((lazy, others));
    // Those that went leave their places.
    let mut again = listen(&mesh).await;
    let said = until(&mut again, "\r\n").await;
    assert!(said.starts_with("HTTP/1.1 200") || said.starts_with("HTTP/1.1 503"), "{said}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(until(&mut listen(&mesh).await, "event: state").await.starts_with("HTTP/1.1 200"));
}
