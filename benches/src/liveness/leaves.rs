//! A node is drained.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh_tests::Node;

use super::flows::Flows;
use super::{Mesh, millis};

const AROUND: Duration = Duration::from_millis(150);
const ANSWERS: Duration = Duration::from_secs(5);

/// From when it is asked for until the last new flow that the drained node's task answered, ms, for every other node.
pub(super) fn measure(mesh: &Mesh) -> Result<Vec<f64>> {
    let (by, victim) = (mesh.entries().first().context("no node")?, mesh.victim()?.name());
    let flows = Flows::begin(mesh)?;
    thread::sleep(AROUND);
    let asked = Instant::now();
    set(by, victim, "drain")?;
    thread::sleep(AROUND);
    let flows = flows.end()?;
    set(by, victim, "active")?;
    mesh.settle()?;
    let lost = flows.iter().filter(|flow| flow.answer.is_none()).count();
    ensure!(lost == 0, "{lost} flows were lost");
    let picked = |entry: usize| {
        let own = flows.iter().filter(|flow| flow.entry == entry && flow.sent > asked);
        let to_it = own.filter(|flow| flow.answer.as_deref() == Some(victim));
        to_it.map(|flow| millis(flow.sent - asked)).fold(0.0, f64::max)
    };
    Ok((0..mesh.entries().len()).map(picked).collect())
}

/// What `mesh node update --detach --availability …` asks for, without the time that a program takes to start. It is
/// answered when it is committed.
fn set(by: &Node, node: &str, availability: &str) -> Result<()> {
    let body = format!(r#"{{"Availability":"{availability}"}}"#);
    let mut socket = UnixStream::connect(by.socket()).context("cannot ask an agent")?;
    socket.set_read_timeout(Some(ANSWERS))?;
    write!(
        socket,
        "PATCH /v1/nodes/{node} HTTP/1.1\r\nHost: mesh\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}
