//! What is seen of a mesh from some place, by HTTP and UDP.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Exec, Host, Netns, Node, eventually};

use super::{AT_ONCE, SOON, Task};

/// How curl ends when it could not connect.
const CONNECTION_REFUSED: i32 = 7;

/// Somewhere to look at the mesh from.
pub(crate) trait Place {
    /// A command there.
    fn command_at(&self, argv: &[&str]) -> Exec;

    /// Its network namespace.
    fn netns_at(&self) -> Result<Netns>;
}

impl Place for Host {
    fn command_at(&self, argv: &[&str]) -> Exec {
        self.command(argv)
    }

    fn netns_at(&self) -> Result<Netns> {
        Ok(self.netns().clone())
    }
}

impl Place for Node {
    fn command_at(&self, argv: &[&str]) -> Exec {
        self.command(argv)
    }

    fn netns_at(&self) -> Result<Netns> {
        Ok(self.netns().clone())
    }
}

impl Place for Task<'_> {
    fn command_at(&self, argv: &[&str]) -> Exec {
        self.command(argv)
    }

    fn netns_at(&self) -> Result<Netns> {
        Netns::of_process(self.pid)
    }
}

/// What a web server answers.
pub(crate) fn curl(from: &(impl Place + ?Sized), url: &str) -> Result<String> {
    let said = from.command_at(&["curl", "-sS", "--max-time", "3", url]).ok()?;
    Ok(said.trim_end().into())
}

/// Waits until a web server answers.
pub(crate) fn answers(from: &(impl Place + ?Sized), url: &str) -> Result<String> {
    eventually(SOON, &format!("{url} answers"), || curl(from, url))
}

/// An error unless a connection is refused, and without a wait.
pub(crate) fn refuses(from: &(impl Place + ?Sized), url: &str) -> Result<()> {
    let start = Instant::now();
    let output = from.command_at(&["curl", "-sS", "--max-time", "3", url]).run()?;
    let took = start.elapsed();
    ensure!(
        output.code() == Some(CONNECTION_REFUSED),
        "`{}` was not refused but ended with {:?} after {took:?}: {}{}",
        output.command,
        output.code(),
        output.stdout,
        output.stderr
    );
    ensure!(took < AT_ONCE, "`{}` took {took:?}", output.command);
    Ok(())
}

/// Waits until connections are refused.
pub(crate) fn comes_to_refuse(from: &(impl Place + ?Sized), url: &str, within: Duration) -> Result<()> {
    eventually(within, &format!("{url} is refused"), || refuses(from, url))
}

/// Who answers how often when a web server is asked that many times, each time over a new connection.
pub(crate) fn spread(
    from: &(impl Place + ?Sized),
    url: &str,
    count: usize,
) -> Result<BTreeMap<String, usize>> {
    let urls = format!("{url}[1-{count}]");
    let curl = ["curl", "-sS", "--max-time", "8", "-H", "Connection: close", &urls];
    let said = from.command_at(&curl).ok()?;
    let mut spread = BTreeMap::new();
    for line in said.lines() {
        let who = line.split(" from ").next().unwrap_or_default();
        *spread.entry(who.to_owned()).or_default() += 1;
    }
    let all: usize = spread.values().sum();
    ensure!(all == count, "{all} of {count} answers: {spread:?}");
    Ok(spread)
}

/// Waits until exactly these tasks answer.
pub(crate) fn served_by(from: &(impl Place + ?Sized), url: &str, tasks: &[&Task<'_>]) -> Result<()> {
    let mut expected: Vec<_> = tasks.iter().map(|task| task.name.as_str()).collect();
    expected.sort_unstable();
    eventually(SOON, &format!("{url} is served by {expected:?}"), || {
        // That one of three tasks is not among 30 answers happens once in 60,000 times.
        let spread = spread(from, url, 30)?;
        let who: Vec<_> = spread.keys().collect();
        ensure!(who == expected, "it is served by {who:?}");
        Ok(())
    })
}

/// What a UDP server answers to one datagram.
pub(crate) fn ask(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<String> {
    let to = to.into();
    from.netns_at()?
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            socket.send(b"who are you?")?;
            let mut buffer = [0; 512];
            let read = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..read]).trim_end().to_owned())
        })?
        .and_then(
            |answer: String| {
                if answer.contains(" from ") { Ok(answer) } else { bail!("{to} answers {answer:?}") }
            },
        )
        .with_context(|| format!("asking {to} by UDP"))
}

/// Waits until a UDP server answers.
pub(crate) fn answers_udp(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<String> {
    let to = to.into();
    eventually(SOON, &format!("{to} answers by UDP"), || ask(from, to))
}
