//! Conversations that go on: one connection, or one UDP socket, for many questions.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use super::{AT_ONCE, Place, Task};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A port that nothing else of these tests has, below those that kernels give.
fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    10_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 9_000
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// A connection to a web server that is kept open.
#[derive(Debug)]
pub(crate) struct Talk(TcpStream);

impl Talk {
    /// From a port of its own: a client that uses one port towards two nodes may not keep it, where both choose one task.
    pub(crate) fn open(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<Self> {
        let to = to.into();
        let socket = from.netns_at()?.run(|| Socket::new(Domain::for_address(to), Type::STREAM, None))??;
        socket.bind(&SocketAddr::new(unspecified(to), own_port()).into()).context("binding a port")?;
        socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("connecting to {to}"))?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// This end's own address and port.
    pub(crate) fn own(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }

    /// Who answers one more request over it.
    pub(crate) fn ask(&mut self) -> Result<String> {
        self.get("/")
    }

    /// The last line of an answer.
    pub(crate) fn get(&mut self, path: &str) -> Result<String> {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"\n") || answer.ends_with(b"\r\n") {
            // A read with a time limit ends when the process is stopped and goes on.
            let read = match self.0.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            ensure!(read > 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..read]);
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
        Ok(text.lines().last().unwrap_or_default().to_owned())
    }

    /// An error unless the server sees this end's own address and port.
    pub(crate) fn is_seen_as_it_is(&mut self) -> Result<()> {
        let (own, peer) = (self.0.local_addr()?, self.get("/peer")?);
        ensure!(peer.parse() == Ok(own), "by TCP the client is {own}, and the task sees {peer}");
        Ok(())
    }
}

/// A UDP socket that is connected to one place.
#[derive(Debug)]
pub(crate) struct Datagrams(UdpSocket);

impl Datagrams {
    pub(crate) fn open(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<Self> {
        let to = to.into();
        let socket = from.netns_at()?.run(|| UdpSocket::bind((unspecified(to), own_port())))??;
        socket.connect(to).with_context(|| format!("connecting to {to} by UDP"))?;
        socket.set_read_timeout(Some(PATIENCE / 4))?;
        Ok(Self(socket))
    }

    /// The answer to one datagram.
    pub(crate) fn ask(&self, what: &str) -> Result<String> {
        self.0.send(what.as_bytes())?;
        self.hear()
    }

    /// The next answer.
    pub(crate) fn hear(&self) -> Result<String> {
        let mut buffer = [0; 2048];
        let read = match self.0.recv(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.0.recv(&mut buffer)?,
            read => read?,
        };
        Ok(String::from_utf8_lossy(&buffer[..read]).trim_end().to_owned())
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.0
    }

    /// An error unless the server sees this end's own address and port.
    pub(crate) fn is_seen_as_it_is(&self) -> Result<()> {
        let (own, peer) = (self.0.local_addr()?, self.ask("peer")?);
        ensure!(peer.parse() == Ok(own), "by UDP the client is {own}, and the task sees {peer}");
        Ok(())
    }
}

/// An error unless a datagram is answered with an ICMP error, and without a wait.
pub(crate) fn refuses_udp(from: &(impl Place + ?Sized), to: impl Into<SocketAddr>) -> Result<()> {
    let to = to.into();
    let socket = Datagrams::open(from, to)?;
    let start = Instant::now();
    let answer = socket.ask("who are you?");
    let told = |error: &anyhow::Error| {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        kind == Some(ErrorKind::ConnectionRefused)
    };
    ensure!(answer.as_ref().is_err_and(told), "{to} by UDP says {answer:?}");
    ensure!(start.elapsed() < AT_ONCE, "{to} by UDP took {:?}", start.elapsed());
    Ok(())
}

/// The IPv4 and the IPv6 address that a name is for a task.
pub(crate) fn both(from: &Task<'_>, name: &str) -> Result<[IpAddr; 2]> {
    let one = |kind: &str| -> Result<IpAddr> {
        let answer = super::dig(from, &format!("{name} {kind}"))?;
        let [address] = &answer.data[..] else { bail!("not one address:\n{}", answer.text) };
        Ok(address.parse()?)
    };
    Ok([one("A")?, one("AAAA")?])
}

/// `http://192.0.2.1:80/` or `http://[2001:db8::1]:80/`
pub(crate) fn url_at(address: IpAddr, port: u16) -> String {
    format!("http://{}/", SocketAddr::from((address, port)))
}
