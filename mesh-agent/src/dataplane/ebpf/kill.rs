//! **Effect.** Ends sockets whose backend has gone, by netlink (sock_diag(7)): their processes are told at once, and
//! do not wait for answers that nobody will give. Lists them for those who ask.
//!
//! A socket is ended by its cookie, which is nobody else's ever, so what has taken its addresses since is safe.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_ebpf::abi::{Addr16, NetPort, TCP, UDP};
use nix::libc::{AF_INET, AF_INET6};
use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// The kernel answers within microseconds; longer means that the answer was lost.
const TIMEOUT: Duration = Duration::from_secs(5);
const RECEIVE_BUFFER: usize = 1 << 16;
/// `struct nlmsghdr`: bytes; netlink(7). Types of messages.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `struct inet_diag_sockid` of linux/inet_diag.h: ports, both addresses, device, cookie.
const ID: usize = 48;
/// What comes before it in a request (`inet_diag_req_v2`) and in an answer (`inet_diag_msg`).
const REQUEST_ID: usize = 8;
const ANSWER_ID: usize = 4;
const REQUEST: usize = HEADER + REQUEST_ID + ID;
/// `struct inet_diag_msg`: bytes; attributes follow.
const ANSWER: usize = 72;
/// `INET_DIAG_INFO`: the attribute, and the bit that asks for it.
const INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INFO - 1);
/// Where `struct tcp_info` of linux/tcp.h has how many milliseconds ago data was last sent and received.
const LAST_SENT: usize = 44;
const LAST_RECEIVED: usize = 52;
/// All states but those without a process or a peer: TIME_WAIT (6), LISTEN (10), NEW_SYN_RECV (12).
const STATES: u32 = !(1 << 6 | LISTEN | 1 << 12);
/// Those that listen.
const LISTEN: u32 = 1 << 10;

/// A socket, and the backend that it is connected to.
pub(super) type Lost = (u64, Addr16, NetPort);

/// A socket as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) cookie: u64,
    /// Its own port.
    pub(super) port: u16,
    /// Of linux/tcp_states.h, also for UDP.
    pub(super) state: u8,
    /// Milliseconds since data came or went; 0 where the kernel does not say.
    pub(super) idle: u32,
}

/// A way to the sockets of one network namespace.
pub(super) struct Diag {
    socket: Socket,
    sequence: u32,
}

/// Whether sockets can be ended here: tried on those that nobody has.
pub(super) fn attempt() -> Result<(), String> {
    let attempt = || {
        let mut diag = Diag::open()?;
        let family = u8::try_from(AF_INET).map_err(io::Error::other)?;
        for proto in [TCP, UDP] {
            // What is not known of at all is not found either.
            diag.find(family, proto, &BTreeSet::new())?;
            diag.destroy(family, proto, &[0; ID])?;
        }
        Ok(())
    };
    attempt().map_err(|error: io::Error| {
        format!("the kernel ends no sockets (CONFIG_INET_DIAG_DESTROY, CONFIG_INET_UDP_DIAG): {error}")
    })
}

impl Diag {
    /// To those of the namespace that the caller is in.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&rtnetlink::sys::SocketAddr::new(0, 0))?;
        let seconds = i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(seconds, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Ends those of some protocols that are connected as is said. How many there were.
    pub(super) fn end(&mut self, lost: &BTreeSet<Lost>, protocols: &[u8]) -> io::Result<usize> {
        let mut ended = 0;
        for family in [AF_INET, AF_INET6] {
            for proto in protocols {
                let family = u8::try_from(family).map_err(io::Error::other)?;
                for id in self.find(family, *proto, lost)? {
                    ended += usize::from(self.destroy(family, *proto, &id)?);
                }
            }
        }
        Ok(ended)
    }

    /// All sockets of a protocol that have a process.
    pub(super) fn list(&mut self, proto: u8) -> io::Result<Vec<Seen>> {
        let mut all = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let family = u8::try_from(family).map_err(io::Error::other)?;
            self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, [family, proto, WANT_INFO], STATES, &[0; ID])?;
            self.receive(|body| all.extend(seen(family, body)))?;
        }
        Ok(all)
    }

    /// The ids of those that there are.
    fn find(&mut self, family: u8, proto: u8, lost: &BTreeSet<Lost>) -> io::Result<Vec<[u8; ID]>> {
        self.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, [family, proto, 0], STATES, &[0; ID])?;
        let mut found = Vec::new();
        self.receive(|body| {
            if let Some(id) = body.get(ANSWER_ID..).and_then(<[u8]>::first_chunk::<ID>)
                && lost.contains(&peer(family, id))
            {
                found.push(*id);
            }
        })?;
        Ok(found)
    }

    /// False: it ended by itself in the meantime.
    fn destroy(&mut self, family: u8, proto: u8, id: &[u8; ID]) -> io::Result<bool> {
        self.send(SOCK_DESTROY, NLM_F_ACK, [family, proto, 0], STATES, id)?;
        match self.receive(|_| {}) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Asks about sockets of a family and protocol, with what is wanted beside.
    fn send(&mut self, kind: u16, flags: u16, about: [u8; 3], states: u32, id: &[u8; ID]) -> io::Result<()> {
        self.sequence += 1;
        let mut bytes = Vec::with_capacity(REQUEST);
        bytes.extend(u32::try_from(REQUEST).map_err(io::Error::other)?.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(about);
        bytes.push(0);
        bytes.extend(states.to_ne_bytes());
        bytes.extend(id);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Until the kernel says that its answer is complete.
    fn receive(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while let Some((kind, sequence, body, next)) = message(rest) {
                rest = next;
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    _ => each(body),
                }
            }
        }
    }
}

/// The first of some messages: its type, its number, what it says, and the rest.
fn message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let length = usize::try_from(word(0)?).ok()?;
    let kind = bytes.get(4..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))?;
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, word(8)?, body, next))
}

/// What an answer says of a socket.
fn seen(family: u8, body: &[u8]) -> Option<Seen> {
    let id = body.get(ANSWER_ID..).and_then(<[u8]>::first_chunk::<ID>)?;
    let mut idle = 0;
    let mut rest = body.get(ANSWER..).unwrap_or_default();
    // Attributes: length, type, value, each padded to four bytes (netlink(7)).
    while let Some([a, b, c, d]) = rest.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([*a, *b]));
        let Some(value) = rest.get(4..length) else { break };
        let at = |at: usize| value.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        if u16::from_ne_bytes([*c, *d]) == INFO
            && let (Some(sent), Some(received)) = (at(LAST_SENT), at(LAST_RECEIVED))
        {
            idle = sent.min(received);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let (cookie, ..) = peer(family, id);
    Some(Seen { cookie, port: u16::from_be_bytes([id[0], id[1]]), state: *body.get(1)?, idle })
}

/// An address in it.
fn address(family: u8, id: &[u8; ID], at: usize) -> Addr16 {
    let word = |at: usize| u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]);
    if i32::from(family) == AF_INET {
        Addr16::from_word(word(at))
    } else {
        Addr16([word(at), word(at + 4), word(at + 8), word(at + 12)])
    }
}

/// Where TCP sockets of the namespace that the caller is in listen. The kernel looks at those alone: a table in `/proc` is
/// one of all connections, and of room for as many again.
pub(crate) fn listening() -> io::Result<Vec<SocketAddr>> {
    let mut diag = Diag::open()?;
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let family = u8::try_from(family).map_err(io::Error::other)?;
        diag.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, [family, TCP, 0], LISTEN, &[0; ID])?;
        diag.receive(|body| {
            let id = body.get(ANSWER_ID..).and_then(<[u8]>::first_chunk::<ID>);
            let own = |id: &[u8; ID]| {
                SocketAddr::new(address(family, id, 4).into(), u16::from_be_bytes([id[0], id[1]]))
            };
            all.extend(id.map(own));
        })?;
    }
    Ok(all)
}

/// Whose socket it is, and whom it is connected to.
fn peer(family: u8, id: &[u8; ID]) -> Lost {
    let word = |at: usize| u32::from_ne_bytes([id[at], id[at + 1], id[at + 2], id[at + 3]]);
    let addr = address(family, id, 20);
    let cookie = u64::from(word(40)) | u64::from(word(44)) << 32;
    (cookie, addr, NetPort(u16::from_ne_bytes([id[2], id[3]])))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use super::super::syscall::socket_cookie;
    use super::*;

    fn lost(socket: impl AsFd, to: SocketAddr) -> Lost {
        (socket_cookie(socket).unwrap(), to.ip().into(), NetPort::new(to.port()))
    }

    /// Needs root, as all that ends what is others' does.
    #[test]
    fn only_the_sockets_that_are_named_are_ended() {
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let (server, peer) =
                (TcpListener::bind((address, 0)).unwrap(), UdpSocket::bind((address, 0)).unwrap());
            let (tcp, udp) = (server.local_addr().unwrap(), peer.local_addr().unwrap());
            let mut streams = [(); 2].map(|()| TcpStream::connect(tcp).unwrap());
            let sockets = [(); 2].map(|()| UdpSocket::bind((address, 0)).unwrap());
            for socket in &sockets {
                socket.connect(udp).unwrap();
                socket.set_nonblocking(true).unwrap();
            }
            for stream in &streams {
                stream.set_nonblocking(true).unwrap();
            }
            let elsewhere: SocketAddr = (address, 9).into();
            let ended = BTreeSet::from([
                lost(&streams[0], tcp),
                lost(&sockets[0], udp),
                // Connected to somebody else meanwhile.
                lost(&streams[1], elsewhere),
            ]);
            let mut diag = Diag::open().unwrap();
            assert_eq!(diag.end(&ended, &[TCP, UDP]).unwrap(), 2);
            assert_eq!(diag.end(&ended, &[TCP, UDP]).unwrap(), 0);
            let [dead, alive] = streams.each_mut().map(|stream| stream.read(&mut [0]).unwrap_err().kind());
            assert_eq!((dead, alive), (io::ErrorKind::ConnectionAborted, io::ErrorKind::WouldBlock));
            let [dead, alive] = sockets.each_ref().map(|socket| socket.recv(&mut [0]).unwrap_err().kind());
            assert_eq!((dead, alive), (io::ErrorKind::ConnectionAborted, io::ErrorKind::WouldBlock));
        }
    }

    #[test]
    fn whether_sockets_can_be_ended_is_known_before() {
        attempt().unwrap();
    }

    #[test]
    fn sockets_are_listed_with_their_ports_and_states() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let datagrams = UdpSocket::bind("[::1]:0").unwrap();
        let mut diag = Diag::open().unwrap();
        let own = |all: Vec<Seen>, cookie| all.into_iter().find(|seen| seen.cookie == cookie);
        let found = own(diag.list(TCP).unwrap(), socket_cookie(&stream).unwrap()).unwrap();
        assert_eq!((found.port, found.state), (stream.local_addr().unwrap().port(), 1));
        assert!(found.idle < 60_000, "{found:?}");
        let found = own(diag.list(UDP).unwrap(), socket_cookie(&datagrams).unwrap()).unwrap();
        assert_eq!((found.port, found.state), (datagrams.local_addr().unwrap().port(), 7));
        // Who only listens has no flows.
        assert_eq!(own(diag.list(TCP).unwrap(), socket_cookie(&server).unwrap()), None);
    }

    /// IPv4 in a socket of IPv6.
    #[test]
    fn a_socket_of_both_families_is_found() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), server.local_addr().unwrap().port());
        let stream = TcpStream::connect(to).unwrap();
        let mapped = lost(&stream, server.local_addr().unwrap());
        assert_eq!(Diag::open().unwrap().end(&BTreeSet::from([mapped]), &[TCP, UDP]).unwrap(), 1);
    }
}
